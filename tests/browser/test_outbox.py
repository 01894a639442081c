"""The outbox page finds and resolves messages, in Airflow's UI and in Chromium."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import expect
from tests.support.outbox_page import message

if TYPE_CHECKING:
    from tests.support.outbox_page import OutboxPage
    from tests.support.outbox_server import OutboxServer

pytest.importorskip("airflow.api_fastapi.core_api.security", reason="the page needs Airflow 3.1 or newer")

PHONE = "+16505550103"


def test_the_menu_opens_the_page_with_open_cases_and_messages(page: OutboxPage, server: OutboxServer) -> None:
    server.fill(
        [message(1, "unknown"), message(2, "sending"), message(3), message(4, "rejected", reason="no such number")]
    )
    page.page.goto(server.url)
    page.page.get_by_role("button", name="Browse", exact=True).click()  # exact: not before Airflow's texts are loaded
    page.page.get_by_role("menuitem", name="Apptoto outbox").click()
    page.is_in_airflow()

    page.shows(1, 2, table="Open cases")
    page.shows(1, 2, 3, 4)
    expect(page.frame.get_by_role("heading", name="Open cases: 2")).to_be_visible()
    row = page.rows().nth(3)
    for text in ("rejected", "+1•••0004", "sms", "ref-4", "clinic_reminders.remind", "monday, try 1", "no such number"):
        expect(row).to_contain_text(text)
    row.get_by_role("button", name="Details of sms to +1•••0004").click()
    expect(page.frame.get_by_role("dialog", name="Message")).to_contain_text("no such number")


def test_from_a_task_to_its_resolved_message_in_three_steps(page: OutboxPage, server: OutboxServer) -> None:
    run_id = server.sent["run_id"]
    server.fill(
        [message(1, "unknown", run_id=run_id), message(2, "unknown"), message(3, run_id=run_id)], keep_sent=True
    )
    page.page.goto(f"{server.url}/dags/clinic_reminders/runs/{run_id}/tasks/remind/details")
    page.page.get_by_role("link", name="Apptoto outbox").click()
    page.is_in_airflow()
    page.shows(1, table="Open cases")
    expect(page.rows()).to_have_count(3)
    expect(page.field("Run")).to_have_value(run_id)

    page.select(1, table="Open cases")
    page.confirm("It was sent", "Record as sent", "it is in the conversation")

    assert server.states() == {"ref-1": "sent", "ref-2": "unknown", "ref-3": "sent", "4711": "sent"}
    page.frame.get_by_role("link", name="clinic_reminders.remind").first.click()
    expect(page.page.get_by_role("heading", name="remind")).to_be_visible()
    assert page.page.url.startswith(f"{server.url}/dags/clinic_reminders/runs/manual__")


def test_filters_narrow_the_list_and_the_address_keeps_them(page: OutboxPage, server: OutboxServer) -> None:
    server.fill(
        [
            message(1),
            message(2, "unknown", dag_id="lab_results", channel="email"),
            message(3, "rejected", dag_id="lab_results"),
            message(120, dag_id="lab_results", run_id="sunday", task_id="other"),
        ]
    )
    page.open_in_airflow()
    for filled, shown in (
        ({"DAG": "lab_results"}, [2, 3, 120]),
        ({"Run": "sunday"}, [120]),
        ({"Task": "other"}, [120]),
        ({"Reference": "ref-3"}, [3]),
        ({"Outcome": "rejected"}, [3]),
        ({"Outcome": "unknown"}, [2]),
        ({"Channel": "email"}, [2]),
        ({"From": "2026-11-29T12:00"}, [1, 2, 3]),  # an hour earlier in UTC
        ({"Until": "2026-11-29T12:00"}, [120]),
        ({"DAG": "lab_results", "Outcome": "sent"}, [120]),
    ):
        for name, value in filled.items():
            field = page.field(name)
            field.select_option(value) if name in {"Outcome", "Channel"} else field.fill(value)
        page.button("Filter").click()
        page.shows(*shown)
        if len(filled) < 2:
            page.button("Clear filters").click()
            page.shows(1, 2, 3, 120)

    expect(page.frame.get_by_text("Open cases: 1", exact=True)).to_be_visible()
    assert page.page.url.endswith("/outbox?dag=lab_results&outcome=sent")
    page.page.reload()
    page.is_in_airflow()
    page.shows(120)
    expect(page.field("DAG")).to_have_value("lab_results")


def test_a_recipient_that_was_typed_in_is_nowhere_afterwards(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(number, recipient=server.hash_of(f"+1650555010{number}")) for number in range(1, 6)])
    page.open_in_airflow()
    typed = ["+1 (650) 555-0103", PHONE, "nobody.at.all@clinic.example", "ref-2"]
    for text, shown in zip(typed, [[3], [3], [], [2]], strict=True):
        page.field("Reference or recipient").fill(text)
        page.button("Search").click()
        if shown:
            page.shows(*shown)
        else:
            expect(page.frame.get_by_text("No message matches.")).to_be_visible()
    page.button("End search").click()
    page.shows(1, 2, 3, 4, 5)

    history = page.page.context.new_cdp_session(page.page).send("Page.getNavigationHistory")
    kept = [server.log, str(history), *(frame.url for frame in page.page.frames)]
    kept.append(page.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"))
    files = [each.read_bytes() for each in server.home.rglob("*") if each.is_file()]
    for text in (*typed[:3], "6505550103", "650%29", "nobody.at.all"):
        assert not any(text in each for each in kept)
        assert not any(text.encode() in each for each in files)
    assert "ann searched for a reference or a recipient: 1 rows" in server.log


def test_a_number_without_country_code_is_explained(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(1)])
    page.open()
    page.field("Reference or recipient").fill("650 555 0103")
    page.field("Reference or recipient").press("Enter")
    expect(page.frame.get_by_text("Searched as a reference only:")).to_be_visible()


def test_older_messages_follow_page_by_page(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(number) for number in range(120)])
    page.open()
    page.shows(*range(50))
    page.button("Show older messages").click()
    page.shows(*range(100))
    page.button("Show older messages").click()
    page.shows(*range(120))
    expect(page.button("Show older messages")).to_be_hidden()


def test_a_csv_file_has_what_is_selected_and_runs_no_formula(page: OutboxPage, server: OutboxServer) -> None:
    server.fill(
        [message(number) for number in range(60)] + [message(60, "rejected"), message(61, "rejected", reference="=1+1")]
    )
    page.open_in_airflow()
    page.field("Outcome").select_option("rejected")
    page.button("Filter").click()
    expect(page.rows()).to_have_count(2)
    with page.page.expect_download() as download:
        page.button("Download CSV").click()
    assert download.value.suggested_filename == "apptoto-outbox.csv"
    with Path(download.value.path()).open(newline="") as file:
        assert [(row["reference"], row["outcome"]) for row in csv.DictReader(file)] == [
            ("ref-60", "rejected"),
            ("'=1+1", "rejected"),
        ]
    page.button("Clear filters").click()
    page.shows(*range(50))
    with page.page.expect_download() as download:
        page.button("Download CSV").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 1 + 62


def test_many_messages_of_several_dags_are_resolved_with_one_note(page: OutboxPage, server: OutboxServer) -> None:
    dag_ids = ("clinic_reminders", "lab_results")
    server.fill([message(number, "unknown", dag_id=dag_ids[number % 2]) for number in range(8)] + [message(8)])
    page.open()
    page.frame.get_by_role("checkbox", name="Select all: Open cases").check()
    page.select(8)
    expect(page.frame.get_by_role("region", name="Selected messages")).to_contain_text("9 messages")
    page.button("It was not sent").click()
    dialog = page.frame.get_by_role("dialog", name="Record as not sent")
    expect(dialog).to_contain_text("and 3 more")
    expect(dialog).to_contain_text("1 of the selected messages are left as they are")
    page.button("Record as not sent: 8 messages").click()
    expect(dialog).to_be_visible()  # without a note, nothing happens
    assert {*server.states().values()} == {"unknown", "sent"}
    dialog.get_by_label("Note").fill("Apptoto was down")
    page.button("Record as not sent: 8 messages").click()

    expect(page.frame.get_by_text("There are no open cases.")).to_be_visible()
    assert server.states() == {**{f"ref-{number}": "not_sent" for number in range(8)}, "ref-8": "sent"}
    expect(page.rows().first).to_contain_text("ann: Apptoto was down")
    assert "ann resolved as not_sent messages of DAG 'lab_results'" in server.log
    assert "Apptoto was down" not in server.log


def test_a_resolution_is_changed_and_its_history_shown(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(1, "unknown")])
    page.open()
    page.select(1)
    page.confirm("It was not sent", "Record as not sent", "not found")
    page.select(1)
    page.confirm("It was sent", "Record as sent", "found after all")

    assert server.states() == {"ref-1": "sent"}
    page.button("Details of sms to +1•••0001").click()
    details = page.frame.get_by_role("dialog", name="Message")
    expect(details).to_contain_text("unknown → not_sent, ann: not found")
    expect(details).to_contain_text("not_sent → sent, ann: found after all")


def test_messages_are_forgotten_and_recipients_opted_out(page: OutboxPage, server: OutboxServer) -> None:
    hashes = {number: server.hash_of(f"+1650555010{number}") for number in (1, 2, 3)}
    server.fill([message(number, recipient=hashes[number]) for number in hashes])
    page.open()
    page.select(1, 2)
    page.confirm("Opt out", "Opt out: 2 messages", "they called")
    expect(page.frame.get_by_text("Recipients opted out: 2 messages.")).to_be_visible()
    page.select(3)
    page.confirm("Forget", "Forget", "sent by mistake to a test number")
    page.shows(1, 2)

    with server.database.transaction() as connection:
        rows = connection.exec_driver_sql("select recipient, list, added_by, note from apptoto_optout").fetchall()
    assert {tuple(row) for row in rows} == {(hashes[number], "all", "ann", "they called") for number in (1, 2)}


def test_nothing_is_changed_if_the_confirmation_is_cancelled(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(1, "unknown")])
    page.open()
    page.select(1)
    for is_by_key in (False, True):
        page.button("Forget").click()
        page.frame.get_by_role("dialog").get_by_label("Note").fill("why")
        if is_by_key:
            page.page.keyboard.press("Escape")
        else:
            page.button("Cancel").click()
        expect(page.frame.get_by_role("dialog")).to_have_count(0)
    assert server.states() == {"ref-1": "unknown"}


def test_an_empty_outbox_says_so(page: OutboxPage) -> None:
    page.open()
    expect(page.frame.get_by_text("There are no open cases.")).to_be_visible()
    expect(page.frame.get_by_text("No message has been recorded yet.")).to_be_visible()
    expect(page.button("Show older messages")).to_be_hidden()
