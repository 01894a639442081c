"""People who opted out are found in every spelling, under every key, and at every moment; only hashes are stored."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, select

from airflow_provider_apptoto.client import ApptotoConfigurationError, ApptotoValidationError, Message
from airflow_provider_apptoto.client.recipients import canonical, spellings
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.optout_lists import ALL, check_lists
from airflow_provider_apptoto.outbox.optouts import OptOuts
from airflow_provider_apptoto.outbox.schema import optouts
from airflow_provider_apptoto.outbox.secret import LedgerSecret
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD, NEW = "an old secret of 20 characters", "a new secret of 20 characters"
ANN, BEN, CAT = "+16505550199", "+16505550198", "cat@clinic.example"
SPELLINGS = [
    (ANN, "US", ["+1 (650) 555-0199", "650.555.0199", "1-650-555-0199", "tel:+1-650-555-0199", " 011 1 650 555 0199"]),
    (ANN, None, ["+16505550199", "\uff0b\uff11\uff16\uff15\uff10\uff15\uff15\uff15\uff10\uff11\uff19\uff19"]),
    (ANN, None, ["\u202a+1 650\u00a0555\u20110199\u202c", "+1/650/555/0199", "+\u0661\u0666\u0665\u0660 5550199"]),
    ("+442079460958", "GB", ["+44 (0)20 7946 0958", "020 7946 0958", "0044 20 7946 0958", "+44 020 7946 0958"]),
    ("+5491123456789", None, ["+54 9 11 2345-6789", "+54 11 15 2345-6789", "+54 11 2345-6789"]),
    ("+5491123456789", "AR", ["011 15 2345-6789", "11 15 2345 6789", "9 11 2345 6789", "11 2345 6789"]),
    ("+541123456789", "AR", ["+54 9 11 2345-6789", "011 15 2345-6789"]),  # a call
    ("+390612345678", None, ["+39 06 1234 5678", "+39 6 1234 5678"]),
    ("+390612345678", "IT", ["06 12345678", "6 12345678"]),
    ("+393471234567", None, ["+39 347 123 4567", "+39 0347 123 4567"]),
    ("+525512345678", None, ["+52 55 1234 5678", "+52 1 55 1234 5678", "+52 044 55 1234 5678"]),
    ("+525512345678", "MX", ["55 1234 5678", "1 55 1234 5678", "044 55 1234 5678", "01 55 1234 5678"]),
    ("+5511961234567", "BR", ["+55 11 96123-4567", "+55 11 6123-4567", "011 96123-4567"]),
    (CAT, None, ["Cat@Clinic.Example", " cat@clinic.example\n", "mailto:CAT@CLINIC.EXAMPLE"]),
    ("j\u00f6rg@b\u00fccher.example", None, ["J\u00d6RG@B\u00dcCHER.example", "jo\u0308rg@xn--bcher-kva.example"]),
]


def optouts_of(database: StateDatabase, *secrets: str, region: str | None = None) -> OptOuts:
    """Return the lists as a new process with these secrets sees them."""
    store = SqlLedgerStore(database, secret=LedgerSecret(secrets))
    return OptOuts(database, store.hash_keys, region)


def under(database: StateDatabase, secret: str) -> OptOuts:
    """Return the lists as they are found under one secret alone."""
    return OptOuts(database, lambda: LedgerSecret((secret,)).keys(database.salt()))


@pytest.fixture
def lists(database: StateDatabase) -> OptOuts:
    return optouts_of(database)


def rows(database: StateDatabase) -> list[dict[str, Any]]:
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(select(optouts).order_by(optouts.c.added_at))]


@pytest.mark.parametrize(("to", "region", "written"), SPELLINGS)
def test_every_spelling_of_a_recipient_is_the_recipient_of_the_message(
    to: str, region: str | None, written: list[str]
) -> None:
    kind = "email" if "@" in to else "call"
    sent_to = Message(type=kind, to=to, message="Hi", allowed_regions=["*"]).to
    for each in written:
        found = canonical(each, region)
        assert sent_to in spellings(found)
        assert canonical(found, None) == found


@pytest.mark.parametrize(("to", "region", "written"), SPELLINGS)
def test_a_recipient_is_found_in_every_spelling_and_counted_once(
    database: StateDatabase, to: str, region: str | None, written: list[str]
) -> None:
    lists = optouts_of(database, region=region)
    assert lists.add("all", written, by="ann") == 1
    assert lists.add("all", [to], by="ann") == 0
    assert lists.lists_holding([to], ()) == {to: "all"}
    for each in written:
        assert lists.check(each) == ["all"]
    assert lists.remove("all", written[:1]) == 1
    assert lists.lists_holding([to], ()) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ANN, BEN),
        ("+390612345678", "+393471234567"),
        ("+525512345678", "+528112345678"),
        ("+541123456789", "+542234567890"),
        (CAT, "ca.t@clinic.example"),
    ],
)
def test_different_recipients_stay_different(lists: OptOuts, one: str, other: str) -> None:
    lists.add("all", [one], by="ann")
    assert lists.lists_holding([one, other], ()) == {one: "all"}


@pytest.mark.parametrize("number", ["+1 999 999 9999", "+999 1234567", "+39 6 123456"])
def test_a_number_that_is_not_in_use_is_accepted_with_its_country_code(lists: OptOuts, number: str) -> None:
    assert lists.add("all", [number], by="ann") == 1
    assert lists.check(re.sub(r"(\d)", r"\1 ", number)) == ["all"]


@pytest.mark.parametrize(
    ("recipient", "region", "problem"),
    [
        ("650 555 0199", None, "has no country code; add + and the country code, or set default_region"),
        ("52 1 55 1234 5678", None, "has no country code"),
        ("999 999 9999", "US", "is not a valid phone number in US"),
        ("12345", "US", "5 digits"),
        ("+1 650 555 0199 x12", None, "has an extension"),
        ("Ann <ann@clinic.example>", None, "is not a valid e-mail address"),
        ("Ann Smith", None, "is not a phone number"),
        ("", None, "is not a phone number"),
        (16505550199, "US", "must be a string, not int"),
        (["+16505550199", "Ann"], "US", "must be a string, not list"),
    ],
)
def test_an_entry_that_can_not_be_compared_is_refused_and_not_shown(
    database: StateDatabase, recipient: object, region: str | None, problem: str
) -> None:
    lists = optouts_of(database, region=region)
    lists.add("all", [CAT], by="ann")
    changes = (
        lambda: lists.add("all", [ANN, recipient], by="ann"),
        lambda: lists.remove("all", [CAT, recipient]),
        lambda: lists.replace("all", [ANN, recipient]),
    )
    for change in changes:
        with pytest.raises(ApptotoConfigurationError, match=re.escape(problem)) as raised:
            change()
        assert "entry 1: " in str(raised.value)
        assert raised.value.code == "suppression_invalid"
        assert "Smith" not in str(raised.value)
        assert "5550199" not in re.sub(r"\D", "", str(raised.value))
        assert raised.value.__context__ is None
        frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
        assert "_people" not in frames  # its variables are recipients
    assert lists.check(CAT) == ["all"]
    assert len(rows(database)) == 1
    with pytest.raises(ApptotoValidationError, match=re.escape(problem)):
        lists.check(recipient)


def test_the_first_20_wrong_entries_are_named(lists: OptOuts) -> None:
    places = [f"line {number}" for number in range(2, 27)]
    with pytest.raises(ApptotoConfigurationError, match="nothing was changed; invalid entries: 25\n") as raised:
        lists.add("all", ["x"] * 25, by="ann", places=places)
    assert re.findall(r"line \d+", str(raised.value)) == places[:20]
    assert str(raised.value).endswith("\n  and 5 more")


def test_places_belong_to_entries(lists: OptOuts) -> None:
    with pytest.raises(ValueError, match="is longer than"):
        lists.add("all", [ANN, BEN], by="ann", places=["line 1"])


def test_only_hashes_are_stored_with_who_added_them_and_why(lists: OptOuts, database: StateDatabase) -> None:
    assert lists.add("campaigns", [ANN, (CAT,), None], by="ben", note="paper form") == 2
    stored = rows(database)
    assert {row["recipient"] for row in stored} == {recipient_hash(database.salt(), each) for each in (ANN, CAT)}
    assert {(row["list"], row["added_by"], row["note"]) for row in stored} == {("campaigns", "ben", "paper form")}


def test_a_stop_to_campaigns_does_not_stop_lab_results(lists: OptOuts) -> None:
    lists.add("campaigns", [ANN, BEN], by="ann")
    lists.add("all", [BEN], by="ann")
    people = [ANN, BEN, CAT]
    assert lists.lists_holding(people, ("results",)) == {BEN: "all"}
    assert lists.lists_holding(people, ("campaigns",)) == {ANN: "campaigns", BEN: "all"}
    assert lists.check(BEN) == ["all", "campaigns"]
    assert lists.check(CAT) == []
    assert lists.remove("campaigns", [ANN, CAT]) == 1
    assert lists.lists_holding(people, ("campaigns",)) == {BEN: "all"}
    assert lists.remove("campaigns", [ANN]) == 0


def test_entries_are_found_under_a_replaced_secret_and_rewritten_under_the_newest(database: StateDatabase) -> None:
    optouts_of(database, OLD).add("all", [ANN, BEN], by="ann")
    both = optouts_of(database, NEW, OLD)
    assert both.lists_holding([ANN, BEN, CAT], ()) == {ANN: "all", BEN: "all"}
    assert both.add("all", [ANN, CAT], by="ben") == 1
    assert [row["added_by"] for row in rows(database)] == ["ann", "ann", "ben"]
    assert under(database, NEW).lists_holding([ANN, BEN, CAT], ()) == {ANN: "all", CAT: "all"}
    assert both.remove("all", [BEN]) == 1
    assert len(rows(database)) == 2


def test_a_replaced_list_is_rewritten_under_the_newest_secret(database: StateDatabase) -> None:
    optouts_of(database, OLD).add("all", [ANN, BEN], by="ann")
    both = optouts_of(database, NEW, OLD)
    assert both.replace("all", [ANN, CAT], by="dag") == {"total": 2, "added": 1, "removed": 1}
    assert under(database, NEW).lists_holding([ANN, BEN, CAT], ()) == {ANN: "all", CAT: "all"}
    assert len(rows(database)) == 2


def test_a_replaced_list_holds_exactly_the_new_entries(lists: OptOuts, database: StateDatabase) -> None:
    lists.add("other", [BEN], by="ann")
    assert lists.replace("all", (each for each in [ANN, BEN]), by="dag") == {"total": 2, "added": 2, "removed": 0}
    before = rows(database)
    assert lists.replace("all", [ANN, ANN, BEN]) == {"total": 2, "added": 0, "removed": 0}
    assert rows(database) == before  # entries keep their time and author
    assert lists.replace("all", [CAT]) == {"total": 1, "added": 1, "removed": 2}
    assert lists.lists_holding([ANN, BEN, CAT], ("other",)) == {BEN: "other", CAT: "all"}


@pytest.mark.parametrize("nobody", [[], [None]])
def test_an_empty_list_replaces_another_only_if_it_is_allowed(lists: OptOuts, nobody: list[None]) -> None:
    lists.add("all", [ANN], by="ann")
    with pytest.raises(ApptotoConfigurationError, match=r"recipients: is empty.*pass allow_empty=True"):
        lists.replace("all", nobody)
    assert lists.check(ANN) == ["all"]
    assert lists.replace("all", nobody, allow_empty=True) == {"total": 0, "added": 0, "removed": 1}
    assert lists.check(ANN) == []


@pytest.fixture
def reader(database: StateDatabase) -> Iterator[OptOuts]:
    """Provide the lists as another process reads them, with its own connections."""
    other = StateDatabase(database._url)
    yield optouts_of(other)
    other._engine.dispose()


def test_while_a_list_is_replaced_others_see_the_old_one(
    lists: OptOuts, database: StateDatabase, reader: OptOuts
) -> None:
    lists.add("all", [ANN, BEN], by="ann")
    seen = []

    def read(*_: object) -> None:
        seen.append(reader.lists_holding([ANN, BEN, CAT], ()))

    event.listen(database._engine, "after_cursor_execute", read)
    lists.replace("all", [ANN, CAT])
    event.remove(database._engine, "after_cursor_execute", read)
    assert len(seen) >= 4  # lock, read, insert, delete
    assert all(each == {ANN: "all", BEN: "all"} for each in seen)
    assert reader.lists_holding([ANN, BEN, CAT], ()) == {ANN: "all", CAT: "all"}


def test_a_change_that_fails_half_way_changes_nothing(lists: OptOuts, database: StateDatabase) -> None:
    lists.add("all", [ANN], by="ann")

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):
            raise KeyboardInterrupt

    event.listen(database._engine, "after_cursor_execute", fail)
    with pytest.raises(KeyboardInterrupt):
        lists.replace("all", [BEN])
    event.remove(database._engine, "after_cursor_execute", fail)
    assert lists.lists_holding([ANN, BEN], ()) == {ANN: "all"}


def test_nobody_else_can_change_the_lists_during_a_change(
    lists: OptOuts, database: StateDatabase, reader: OptOuts
) -> None:
    """Otherwise a recipient who is added while a list is replaced could be counted, but missing."""
    lists.add("all", [ANN], by="ann")
    reader.check(ANN)
    setting = {"sqlite": "PRAGMA busy_timeout=0", "postgresql": "SET lock_timeout TO '50ms'"}[database.dialect]
    event.listen(reader._database._engine, "begin", lambda connection: connection.exec_driver_sql(setting))
    tried = []

    def add(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT apptoto_optout"):
            with pytest.raises(Exception, match="the state database can't be used") as raised:
                reader.add("all", [BEN], by="ben")
            tried.append(raised.value)

    event.listen(database._engine, "before_cursor_execute", add)
    lists.replace("all", [CAT])
    event.remove(database._engine, "before_cursor_execute", add)
    assert len(tried) == 1
    assert lists.lists_holding([ANN, BEN, CAT], ()) == {CAT: "all"}


def count_statements(database: StateDatabase, statements: list[str]) -> None:
    event.listen(database._engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))


def test_with_100_000_entries_a_message_costs_one_look_up(database: StateDatabase) -> None:
    lists = optouts_of(database, NEW, OLD)
    entries = [
        {"list": "all", "recipient": f"{number:032x}", "added_at": 0.0, "added_by": "", "note": ""}
        for number in range(100_000)
    ]
    with database.transaction() as connection:
        connection.execute(optouts.insert(), entries)
    lists.add("campaigns", [ANN], by="ann")
    statements: list[str] = []
    count_statements(database, statements)
    assert lists.lists_holding([ANN], ("campaigns", "other")) == {ANN: "campaigns"}
    assert len(statements) == 1
    with database.transaction() as connection:
        assert connection.execute(select(func.count()).select_from(optouts)).scalar_one() == 100_001
        if database.dialect == "sqlite":
            sql = "EXPLAIN QUERY PLAN SELECT list FROM apptoto_optout WHERE recipient IN ('a') AND list IN ('all', 'x')"
            plan = " ".join(str(row) for row in connection.exec_driver_sql(sql))
            assert "SEARCH apptoto_optout USING" in plan
            assert "(list=? AND recipient=?)" in plan


def test_many_recipients_are_looked_up_500_at_a_time(lists: OptOuts, database: StateDatabase) -> None:
    people = [f"p{number}@clinic.example" for number in range(1001)]
    assert lists.add("all", people[::2], by="ann") == 501
    statements: list[str] = []
    count_statements(database, statements)
    assert lists.lists_holding(people, ()) == dict.fromkeys(people[::2], "all")
    assert len(statements) == 3
    assert lists.lists_holding([], ()) == {}
    assert len(statements) == 3
    assert lists.remove("all", people) == 501


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "lab/results", "caf\u00e9", "all\n", None, ANN])
def test_what_is_no_name_of_a_list_is_refused_and_not_shown(lists: OptOuts, name: Any) -> None:
    calls = (
        lambda: lists.add(name, [ANN], by="ann"),
        lambda: lists.remove(name, [ANN]),
        lambda: lists.replace(name, [ANN]),
        lambda: check_lists([name]),
        lambda: lists.lists_holding([ANN], [name]),
    )
    for call in calls:
        with pytest.raises(
            ApptotoConfigurationError, match=r"^(list|optout_lists): is not the name of a list"
        ) as raised:
            call()
        assert ANN not in str(raised.value)


def test_names_of_lists_are_a_collection() -> None:
    assert check_lists(["campaigns", "x" * 64, "campaigns", ALL]) == ("campaigns", "x" * 64, "all")
    assert check_lists(()) == ()
    for names in ("campaigns", b"x", {"campaigns": 1}, 5, None):
        with pytest.raises(ApptotoConfigurationError, match=r'^optout_lists: must be a list of names, such as \("camp'):
            check_lists(names)


@pytest.mark.parametrize("recipients", [ANN, b"x", {ANN: 1}, 5, None])
def test_recipients_are_a_collection(lists: OptOuts, recipients: Any) -> None:
    with pytest.raises(
        ApptotoConfigurationError, match=r"^recipients: must be a list of phone numbers and e-mail addr"
    ):
        lists.replace("all", recipients)


@pytest.mark.parametrize("text", ["a\nb", "x" * 201, " ", 5])
def test_author_and_note_are_lines(lists: OptOuts, text: Any) -> None:
    for field, author, note in (("by", text, ""), ("note", "ann", text)):
        with pytest.raises(ApptotoConfigurationError, match=f"^{field}: must be one line of 1 to 200 characters"):
            lists.add("all", [ANN], by=author, note=note)
    with pytest.raises(ApptotoConfigurationError, match=r"^by: must be one line"):
        lists.replace("all", [ANN], by=text)
    with pytest.raises(ApptotoConfigurationError, match=r"^by: must be one line"):
        lists.add("all", [ANN], by="")
    assert lists.check(ANN) == []


# --- by ledger entries


def test_the_recipients_of_entries_can_be_added_without_knowing_who_they_are(
    database: StateDatabase, lists: OptOuts
) -> None:
    [key] = SqlLedgerStore(database).hash_keys()
    messages = [Message(type="sms", to=to, message="Hi", allowed_regions=["*"]) for to in (ANN, BEN, "+5491123456789")]
    hashes = [str(recipient_hash(key, message.to)) for message in messages]
    assert lists.add_hashes(ALL, hashes[:1], by="ann", note="said so") == 1
    assert lists.add_hashes(ALL, [*hashes, *hashes], by="ann") == 2
    for recipient in (ANN, BEN, "+54 11 15 2345-6789"):
        assert lists.check(recipient) == [ALL]
    assert lists.add(ALL, [ANN], by="ben") == 0
    assert [(row["added_by"], row["note"]) for row in rows(database)] == [("ann", "said so"), ("ann", ""), ("ann", "")]


def test_with_several_secrets_recipients_are_not_added_by_their_hashes(database: StateDatabase) -> None:
    """The hash may be of the old secret, which will be removed."""
    with pytest.raises(ApptotoConfigurationError, match="has several secrets"):
        optouts_of(database, NEW, OLD).add_hashes(ALL, ["a" * 32], by="ann")
    assert rows(database) == []


@pytest.mark.parametrize("wrong", [{"list": "+1650"}, {"by": ""}, {"by": "a\nb"}, {"note": "a\nb"}])
def test_an_invalid_argument_adds_no_hash(database: StateDatabase, lists: OptOuts, wrong: dict[str, str]) -> None:
    with pytest.raises(ApptotoConfigurationError):
        lists.add_hashes(**{"list": ALL, "hashes": ["a" * 32], "by": "ann", "note": "", **wrong})  # type: ignore[arg-type]
    assert rows(database) == []


def test_the_hashes_of_a_recipient_are_those_of_its_entries_under_each_secret(database: StateDatabase) -> None:
    lists = optouts_of(database, NEW, OLD)
    keys = LedgerSecret((NEW, OLD)).keys(database.salt())
    assert lists.hashes_of("+1 (650) 555-0199") == tuple(recipient_hash(key, ANN) for key in keys)
    with pytest.raises(ApptotoValidationError) as raised:
        lists.hashes_of("4711")
    assert "hashes_of" not in [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
