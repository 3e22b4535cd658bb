"""The page as people use it: in chromium, at a real server with the default model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.server import Server
from tests.web.conftest import COMMAND, PARTS, PHONE, QUESTION

pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs 'browser'")
from playwright.sync_api import expect  # noqa: E402

pytestmark = pytest.mark.slow

ANSWER_MS = 60_000
Open = Callable[..., Any]


def accessible(page: Any) -> None:
    """Fails with what axe-core finds."""
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def ended(page: Any, status: str) -> None:
    expect(page.locator(".chip")).to_have_attribute("data-state", status, timeout=ANSWER_MS)


def fill_plan(page: Any) -> None:
    """Three parts that need nothing, and one that needs them."""
    page.get_by_label("My own plan").check()
    for _ in range(2):
        page.get_by_role("button", name="Add a part").click()
    for number, title in enumerate([*PARTS, "Recommendation"], 1):
        page.get_by_label(f"Title of part {number}").fill(title)
    needs = page.get_by_role("group", name="Part 4 needs")
    for number in ("1", "2", "3"):
        needs.get_by_role("button", name=number).click()


def places(page: Any) -> dict[str, Any]:
    return {card.get_attribute("id"): card.bounding_box() for card in page.locator(".card").all()}


def test_from_a_click_to_the_answer(server: Server, opened: Open, images: Path) -> None:
    page = opened(server.url)
    accessible(page)
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("radio", name="plato").check(force=True)
    fill_plan(page)
    accessible(page)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(QUESTION)
    expect(page.locator(".card")).to_have_count(4)
    expect(page.locator("#part-1")).to_contain_text(re.compile(r"([4-9]\d|\d{3}) tokens"))
    expect(page.locator(".reading .prose")).to_contain_text("Solar power")
    before = places(page)
    page.screenshot(path=images / "page-running.png")
    accessible(page)
    ended(page, "done")
    accessible(page)
    assert places(page) == before
    assert page.evaluate("window.shifted") < 0.01
    headings = page.locator(".reading h3").all_inner_texts()
    assert headings == [*PARTS, "Recommendation"]

    # By keyboard: to a part and back.
    part = page.get_by_role("button", name="4 Recommendation").first
    part.focus()
    page.keyboard.press("Enter")
    reading = page.locator(".reading")
    expect(reading.get_by_role("heading", level=2)).to_have_text("4 Recommendation")
    expect(reading.locator("dl")).to_contain_text("1-3")
    expect(reading.locator("dl")).to_contain_text("cached")
    reading.get_by_text("Prompt", exact=True).last.click()
    expect(reading.locator(".prompt pre")).to_contain_text(QUESTION)
    accessible(page)
    page.keyboard.press("Escape")
    expect(part).to_be_focused()
    page.screenshot(path=images / "page-done.png")


def test_what_the_model_plans_is_shown(server: Server, opened: Open) -> None:
    page = opened(server.url)
    page.get_by_role("button", name="How do I choose").click()
    page.get_by_role("radio", name="plato").check(force=True)
    page.get_by_label("Question").press("Enter")
    ended(page, "done")
    assert page.locator(".card").count() >= 2
    expect(page.locator(".timeline li").first).to_contain_text("Plan")
    page.get_by_role("button", name="History").click()
    accessible(page)
    expect(page.locator("dialog .history a")).to_contain_text("How do I choose")


def test_a_cancelled_run_keeps_its_text(server: Server, opened: Open) -> None:
    page = opened(server.url)
    page.get_by_label("Question").fill("Tell me a long story about the sea 🌊, please.")
    page.get_by_role("radio", name="sequential").check(force=True)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".reading .prose").wait_for()
    page.get_by_role("button", name="Cancel", exact=True).click()
    ended(page, "cancelled")
    expect(page.get_by_role("heading", level=1)).to_contain_text("🌊")
    assert page.locator(".reading .prose").inner_text()
    assert page.get_by_role("button", name="Cancel", exact=True).count() == 0


def test_a_refusal_is_shown_where_it_was_asked(server: Server, opened: Open, images: Path) -> None:
    page = opened(server.url)
    page.get_by_label("Question").fill(QUESTION)
    fill_plan(page)
    page.get_by_label("Title of part 2").fill("Wind | water")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("part 2")
    accessible(page)
    page.screenshot(path=images / "page-error.png")
    expect(page.get_by_label("Question")).to_have_value(QUESTION)


def test_a_run_that_is_not_there_is_an_error(server: Server, opened: Open) -> None:
    page = opened(f"{server.url}/#/runs/none")
    expect(page.get_by_role("alert")).to_contain_text("none")
    accessible(page)


def test_a_lost_connection_is_taken_up_where_it_broke(
    server: Server, opened: Open, run: dict[str, Any]
) -> None:
    events = httpx.get(f"{server.url}/v1/runs/{run['id']}/events", timeout=30).text.split("\n\n")
    begun = events[: len(events) // 2]
    resumed_after: list[str | None] = []

    def break_off(route: Any) -> None:
        resumed_after.append(route.request.headers.get("last-event-id"))
        if len(resumed_after) == 1:
            body = "\n\n".join([*begun, ""])
            route.fulfill(body=body, headers={"content-type": "text/event-stream"})
        elif len(resumed_after) == 2:
            route.abort()
        else:
            route.continue_()

    page = opened(server.url)
    page.route("**/events", break_off)
    page.evaluate("id => { location.hash = `#/runs/${id}` }", run["id"])
    expect(page.get_by_text("The connection is lost").first).to_be_visible()
    ended(page, "done")
    last = begun[-1].partition("\n")[0].removeprefix("id: ")
    assert resumed_after == [None, last, last]
    page.get_by_role("button", name="2 Wind power").first.click()
    shown = page.locator(".reading .prose").last.inner_text()
    assert shown.split()[:5] == run["texts"]["2"].split()[:5]


def test_offsets_are_bytes_and_text_that_comes_again_is_dropped(
    server: Server, opened: Open
) -> None:
    page = opened(server.url)
    island = "🏝️ one"
    events = [
        {"type": "mode_chosen", "mode": "sequential", "at_s": 0, "text": "", "text_offset": 0},
        *(
            {
                "type": "node_output",
                "number": 1,
                "offset": offset,
                "tokens": tokens,
                "node_text": text,
                "text": text,
                "text_offset": begins,
                "at_s": at_s,
            }
            for offset, tokens, text, begins, at_s in (
                (0, [1, 2], island, 0, 1),
                (2, [3], " 👍", len(island.encode()), 2),
                (2, [3, 4], " 👍🏽 two", len(island.encode()), 3),
                (9, [5], "a gap", 99, 4),
            )
        ),
    ]
    folded = page.evaluate(
        """async (events) => {
            const { fold } = await import("plato/run.js");
            return [2, 3, 4].map((at) => fold(events, at)).map((s) => [s.answer, s.nodes[0].text]);
        }""",
        events,
    )
    complete = [f"{island} 👍🏽 two"] * 2
    assert folded == [[f"{island} 👍"] * 2, complete, complete]


def test_text_of_the_model_can_do_nothing(server: Server, opened: Open) -> None:
    page = opened(server.url)
    hostile = (
        "<img src=x onerror='document.title=1'><script>document.title=1</script>"
        "[a](javascript:document.title=1) ![b](http://example.com/c.png) "
        "<style>body{display:none}</style> [fine](https://example.com) `<b>`"
    )
    shown = page.evaluate(
        """async (text) => {
            const { h, render } = await import("preact");
            const { Markdown } = await import("plato/markdown.js");
            const place = document.createElement("div");
            render(h(Markdown, { text }), place);
            return place.innerHTML;
        }""",
        hostile,
    )
    for name in ("<img", "<script", "<style", "javascript:"):
        assert name not in shown
    assert 'href="https://example.com"' in shown
    assert "noopener" in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(
    server: Server, opened: Open, run: dict[str, Any], images: Path, scheme: str
) -> None:
    page = opened(
        f"{server.url}/#/runs/{run['id']}",
        viewport=PHONE,
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    ended(page, "done")
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if scheme == "light":
        page.screenshot(path=images / "page-phone.png")
    page.goto(f"{server.url}/#/")
    page.get_by_label("My own plan").check()
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_in_the_dark(server: Server, opened: Open, run: dict[str, Any], images: Path) -> None:
    page = opened(f"{server.url}/#/runs/{run['id']}", color_scheme="dark")
    ended(page, "done")
    page.get_by_role("button", name="4 Recommendation").first.click()
    accessible(page)
    page.screenshot(path=images / "page-dark.png")


def test_both_answers_side_by_side(server: Server, opened: Open, images: Path) -> None:
    page = opened(server.url)
    page.get_by_label("Question").fill(QUESTION)
    fill_plan(page)
    page.get_by_role("button", name="Compare with sequential").click()
    sides = page.locator(".side")
    expect(sides.last).to_contain_text("waits for its turn")
    expect(page.get_by_role("status")).to_contain_text("instead of", timeout=ANSWER_MS)
    # Both from the beginning; then any moment.
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    length = float(page.get_by_role("slider", name="Time").get_attribute("max"))
    page.get_by_role("slider", name="Time").fill(f"{length / 2}")
    accessible(page)
    page.screenshot(path=images / "page-comparison.png")
    page.get_by_role("slider", name="Time").fill("0")
    assert sides.locator(".prose").count() == 0
    page.get_by_role("slider", name="Time").fill(f"{length}")
    assert sides.locator(".prose").count() == 2
    # The link shows the same.
    again = opened(page.url)
    expect(again.get_by_role("status")).to_contain_text("instead of")


def test_a_comparison_goes_on_after_a_reload(server: Server, opened: Open) -> None:
    page = opened(server.url)
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Compare with sequential").click()
    expect(page.locator(".side").first.locator("header a")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("First sequentially")
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("instead of", timeout=ANSWER_MS)
    # It was asked once: the link of both is known, and nothing waits any more.
    first = page.url.split("/")[-2]
    page.goto(f"{server.url}/#/compare/{first}")
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("Only the sequential answer")


def test_a_comparison_that_is_not_there_is_an_error(server: Server, opened: Open) -> None:
    page = opened(f"{server.url}/#/compare/none/neither")
    for side, run_id in zip(page.locator(".side").all(), ("none", "neither"), strict=True):
        expect(side.get_by_role("alert")).to_contain_text(run_id)
    expect(page.get_by_role("status")).to_have_text("The answers cannot be compared.")
    expect(page.locator(".side").first).not_to_contain_text("waits for its turn")


def test_nothing_is_asked_without_a_question(server: Server, opened: Open) -> None:
    page = opened(server.url)
    page.get_by_label("Question").fill("  ")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("no question")
    accessible(page)


def test_files_and_a_page_that_replays_without_a_server(
    server: Server, opened: Open, run: dict[str, Any], tmp_path: Path
) -> None:
    page = opened(f"{server.url}/#/runs/{run['id']}")
    ended(page, "done")
    shown = page.locator(".reading .prose").inner_text()
    saved = {}
    for name in ("JSON", "Markdown", "Chrome trace", "Page that replays"):
        page.locator("summary", has_text="Export").click()
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        saved[name] = path
    (recording,) = json.loads(saved["JSON"].read_text())
    assert recording["run"]["answer"] == run["answer"]
    assert recording["events"][-1]["type"] == "run_finished"
    replayed = page.evaluate(
        """async ({ run, events }) => {
            const { fold, timeOf } = await import("plato/run.js");
            const answers = events.map((event) => fold(events, timeOf(event)).answer);
            return {
                grows: answers.every((answer) => run.answer.startsWith(answer)),
                moments: new Set(answers).size,
                texts: Object.fromEntries(fold(events).nodes.map((n) => [n.number, n.text])),
            };
        }""",
        recording,
    )
    assert replayed["grows"]
    assert replayed["moments"] > 10
    assert replayed["texts"] == run["texts"]
    assert run["answer"] in saved["Markdown"].read_text()
    spans = json.loads(saved["Chrome trace"].read_text())["traceEvents"]
    decoded = {span["tid"]: span for span in spans if span["name"] == "decode"}
    others_end = max(decoded[number]["ts"] + decoded[number]["dur"] for number in (1, 2, 3))
    assert decoded[4]["ts"] >= others_end

    alone = opened(saved["Page that replays"].as_uri(), offline=True)
    reading = alone.locator(".reading .prose")
    assert reading.inner_text() == shown
    accessible(alone)
    alone.get_by_role("slider", name="Time").fill("0")
    assert reading.count() == 0
    alone.get_by_role("button", name="Replay").click()
    expect(alone.locator(".card[data-state=running]").first).to_be_visible()


def test_a_page_that_the_command_writes_replays_the_same(
    server: Server, opened: Open, run: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "run.html"
    command = [sys.executable, "-m", "plato", "trace", run["id"], "--html", str(file)]
    subprocess.run([*command, "--url", server.url], timeout=60, check=True)
    page = opened(f"{server.url}/#/runs/{run['id']}")
    ended(page, "done")
    alone = opened(file.as_uri(), offline=True)
    reading = ".reading .prose"
    assert alone.locator(reading).inner_text() == page.locator(reading).inner_text()
    alone.get_by_role("slider", name="Time").fill("0")
    assert alone.locator(reading).count() == 0
    alone.get_by_role("button", name="Replay").click()
    expect(alone.locator(".card[data-state=running]").first).to_be_visible()


def test_it_is_loaded_at_once(server: Server, opened: Open) -> None:
    page = opened(server.url)
    page.get_by_label("Question").wait_for()
    loaded = page.evaluate(
        """() => ({
            bytes: ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
                .reduce((sum, { transferSize }) => sum + transferSize, 0),
            paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
        })"""
    )
    print(f"first paint after {loaded['paint']:.0f} ms, {loaded['bytes']} bytes")
    assert loaded["bytes"] <= 80_000
    # Nothing is painted before the form is there, and can be used.
    assert loaded["paint"] < 2000


def test_a_key_is_asked_for_and_lists_the_runs(
    tiny_model_folder: str, opened: Open, tmp_path: Path
) -> None:
    key = "0123456789abcdef"
    settings = {"served_model_name": "tiny", "kv_budget_mb": 16, "node_max_tokens": 8}
    with Server(
        tmp_path, COMMAND, model=tiny_model_folder, api_keys=f"shop={key}", **settings
    ) as protected:
        headers = {"Authorization": f"Bearer {key}"}
        body = {"messages": [{"role": "user", "content": "Asked elsewhere"}], "max_tokens": 4}
        url = f"{protected.url}/v1/chat/completions"
        httpx.post(url, json=body, headers=headers, timeout=30).raise_for_status()
        page = opened(protected.url)
        page.get_by_label("Key", exact=True).fill(key)
        accessible(page)
        page.get_by_role("button", name="Use").click()
        expect(page.get_by_text("tiny", exact=True)).to_be_visible()
        page.get_by_role("button", name="History").click()
        page.get_by_role("link", name="Asked elsewhere").click()
        ended(page, "done")
