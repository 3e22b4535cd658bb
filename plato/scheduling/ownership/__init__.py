"""Who drives a run: at any time one scheduler, by a lease with a fencing token.

`lease` is a scheduler's claim to a run, `journal` what it writes of it into the context store,
`stored_runs` what others read there, and `registry` the runs of one scheduler: it keeps their
leases, hands them over when the scheduler drains, and adopts those of schedulers that are gone.
"""
