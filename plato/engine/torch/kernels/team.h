// A team of threads that compute one step together, in phases separated by barriers.
//
// Not OpenMP, whose threads spin at a barrier without yielding. A step has hundreds of barriers,
// and as soon as another process takes a core for a moment, both threads of a team can end up on
// the same core, where each barrier lasts until the next time slice, 3 ms later. Here a thread
// that waits for more than a few microseconds yields.

#pragma once
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define MOST_THREADS 256  // Less than STEP.
// Iterations of a waiting loop before it yields: a few microseconds.
#define PATIENCE 200
// How long a helper waits for the next step before it sleeps: longer than the pause between two
// steps of a busy engine.
#define IDLE_SECONDS 0.004

typedef struct Team Team;

// A thread's part in a step.
typedef struct {
  Team *team;
  int number, size;  // Of `size` threads. The team's own may already be that of the next step.
  unsigned turn;
} Member;

typedef void (*Work)(Member *member, void *data);

struct Team {
  Work work;
  void *data;
  // On separate cache lines: all threads write to them.
  _Alignas(64) atomic_uint turn;
  _Alignas(64) atomic_int arrived;
  _Alignas(64) atomic_long next;
  // The number of the step times STEP, plus the number of threads, including the caller.
  _Alignas(64) atomic_ulong step;
};

#define STEP 1024

static Team team;
static pthread_mutex_t team_in_use = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t asleep = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t awake = PTHREAD_COND_INITIALIZER;
static atomic_int sleepers;
static int helpers;

static inline void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// Waits for all threads of the step, whose writes are visible to all afterwards. Resets `claim`.
static void barrier(Member *member) {
  Team *all = member->team;
  if (member->size == 1) {
    atomic_store_explicit(&all->next, 0, memory_order_relaxed);
    return;
  }
  unsigned turn = member->turn++;
  if (atomic_fetch_add_explicit(&all->arrived, 1, memory_order_acq_rel) == member->size - 1) {
    atomic_store_explicit(&all->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&all->next, 0, memory_order_relaxed);
    atomic_store_explicit(&all->turn, turn + 1, memory_order_release);
    return;
  }
  for (int64_t round = 0; atomic_load_explicit(&all->turn, memory_order_acquire) == turn; round++)
    if (round < PATIENCE) pause_briefly();
    else sched_yield();
}

// The first of the next `count` numbers that no other thread of the team has. Between two barriers.
static inline int64_t claim(Member *member, int64_t count) {
  return atomic_fetch_add_explicit(&member->team->next, count, memory_order_relaxed);
}

// for (...) over the runs [FIRST, LAST) of COUNT numbers below END, distributed; a barrier must follow.
#define SHARED_RUNS(FIRST, LAST, END, COUNT)                                                      \
  for (int64_t FIRST = claim(member, COUNT), LAST;                                                \
       FIRST < (END) && (LAST = FIRST + (COUNT) < (END) ? FIRST + (COUNT) : (END), 1);            \
       FIRST = claim(member, COUNT))

// for (int64_t I = ...) over [0, END), distributed in runs of COUNT; a barrier must follow.
#define SHARED_FOR(I, END, COUNT)                                                          \
  for (int64_t run_ = claim(member, COUNT); run_ < (END); run_ = claim(member, COUNT))     \
    for (int64_t I = run_; I < run_ + (COUNT) && I < (END); I++)

typedef struct {
  int number;
  unsigned long seen;
} Start;

static void *help(void *argument) {
  const Start *start = argument;
  Member member = {&team, start->number, 0, 0};
  unsigned long seen = start->seen, step;
  for (;;) {
    double until = 0;
    for (int64_t round = 0;
         (step = atomic_load_explicit(&team.step, memory_order_acquire)) == seen; round++) {
      if (round < PATIENCE) {
        pause_briefly();
      } else if (until == 0) {
        until = now() + IDLE_SECONDS;
      } else if (round % 64 != 0 || now() < until) {
        sched_yield();
      } else {
        pthread_mutex_lock(&asleep);
        atomic_fetch_add(&sleepers, 1);
        while (atomic_load(&team.step) == seen) pthread_cond_wait(&awake, &asleep);
        atomic_fetch_sub(&sleepers, 1);
        pthread_mutex_unlock(&asleep);
      }
    }
    seen = step;
    member.size = (int)(step % STEP);
    if (member.number >= member.size) continue;
    member.turn = atomic_load_explicit(&team.turn, memory_order_relaxed);
    team.work(&member, team.data);
    barrier(&member);
  }
  return NULL;
}

// In the child of a fork, where there are no helpers.
static void forget_helpers(void) {
  helpers = 0;
  atomic_store(&sleepers, 0);
  atomic_store(&team.arrived, 0);
  atomic_store(&team.next, 0);
  pthread_mutex_init(&team_in_use, NULL);
  pthread_mutex_init(&asleep, NULL);
  pthread_cond_init(&awake, NULL);
}

// Computes `work` with `threads` threads, and returns when all are done. If another engine in the
// process is using the team, the caller computes it alone.
static void together(int threads, Work work, void *data) {
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  if (threads <= 1 || pthread_mutex_trylock(&team_in_use) != 0) {
    Team alone = {.work = work};
    Member member = {&alone, 0, 1, 0};
    work(&member, data);
    return;
  }
  static Start starts[MOST_THREADS];
  unsigned long step = atomic_load(&team.step);
  for (; helpers < threads - 1; helpers++) {
    pthread_t thread;
    starts[helpers] = (Start){helpers + 1, step};
    if (pthread_create(&thread, NULL, help, &starts[helpers]) != 0) break;
    pthread_detach(thread);
  }
  int size = helpers + 1 < threads ? helpers + 1 : threads;
  team.work = work;
  team.data = data;
  Member member = {&team, 0, size, atomic_load_explicit(&team.turn, memory_order_relaxed)};
  atomic_store(&team.step, (step / STEP + 1) * STEP + (unsigned long)size);
  if (atomic_load(&sleepers) > 0) {
    pthread_mutex_lock(&asleep);
    pthread_cond_broadcast(&awake);
    pthread_mutex_unlock(&asleep);
  }
  work(&member, data);
  barrier(&member);
  pthread_mutex_unlock(&team_in_use);
}
