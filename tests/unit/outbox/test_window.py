"""A window is open in the hours that its text names, in the recipient's zone, on days with a clock change too."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.window import SendWindow, zone_named, zone_of_number

MINUTE = timedelta(minutes=1)
NEW_YORK = ZoneInfo("America/New_York")
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAY = 24 * 60


# --- the grammar


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("Mon-Fri 09:00-18:00, Sat 10:00-14:00", None),
        ("09:00-18:00", None),
        ("00:00-24:00", None),
        ("Sun 00:00-00:01", None),
        ("Mon 09:00-10:00, Wed 09:00-10:00", None),
        ("Mon-Fri 09:00-12:00, Mon-Fri 13:00-18:00", None),
        ("Sat 22:00-24:00, Sun 00:00-06:00", None),
        ("Mon-Sun 09:00-18:00", "09:00-18:00"),
        ("mon-FRI 09:00-18:00", "Mon-Fri 09:00-18:00"),
        ("  Mon - Fri  09:00 - 18:00 ,\n Sat 10:00-14:00", "Mon-Fri 09:00-18:00, Sat 10:00-14:00"),
        ("Fri-Mon 10:00-12:00", "Mon 10:00-12:00, Fri-Sun 10:00-12:00"),
        ("Sun-Sat 10:00-12:00", "10:00-12:00"),
        ("Tue-Tue 10:00-12:00", "Tue 10:00-12:00"),
        ("Mon 13:00-14:00, Mon 09:00-10:00", "Mon 09:00-10:00, Mon 13:00-14:00"),
        ("Mon 09:00-12:00, Mon 11:00-14:00", "Mon 09:00-14:00"),
        ("Mon 09:00-12:00, Mon 12:00-14:00", "Mon 09:00-14:00"),
        ("Mon 09:00-18:00, Mon 11:00-12:00", "Mon 09:00-18:00"),
        ("09:00-18:00, Sat 10:00-20:00", "Mon-Fri 09:00-18:00, Sat 09:00-20:00, Sun 09:00-18:00"),
    ],
)
def test_a_window_has_one_normalised_text(text: str, normalised: str | None) -> None:
    window = SendWindow.parse(text)
    assert str(window) == (normalised or text)
    assert SendWindow.parse(str(window)) == window
    assert hash(SendWindow.parse(str(window))) == hash(window)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is blank; write days and hours, for example Mon-Fri 09:00-18:00, Sat 10:00-14:00"),
        (" \n", 'is blank; write days and hours, for example Mon-Fri 09:00-18:00, Sat 10:00-14:00, or "off"'),
        (None, "must be a string, not NoneType; write days and hours, for example Mon-Fri"),
        (9, "must be a string, not int"),
        ("Mon 09:00-10:00,", "has an empty entry; remove the extra comma"),
        (",", "has an empty entry"),
        ("Mon", "'Mon' has no hours; write them after each day or range of days, for example Mon-Fri 09:00-18:00"),
        ("Mon,Wed 09:00-10:00", "'Mon' has no hours"),
        ("Monday 09:00-10:00", "'Monday' must be a day or a range such as Mon-Fri; days are Mon, Tue, Wed, Thu, Fri,"),
        ("Mon-Friday 09:00-10:00", "'Mon-Friday' must be a day"),
        ("Mon- 09:00-10:00", "'Mon-' must be a day"),
        ("-Mon 09:00-10:00", "'-Mon' must be a day"),
        ("Mon-Wed-Fri 09:00-10:00", "'Mon-Wed-Fri' must be a day"),
        ("Mon Wed 09:00-10:00", "'Mon Wed' must be a day"),
        ("x" * 99 + "\n09:00-10:00", f"'{'x' * 39}…' must be a day"),
        ("Mon 9:00-17:00", "'9:00-17:00' must be hours such as 09:00-18:00: two digits each, 24 hours a day"),
        ("Mon 09:00:30-17:00", "'09:00:30-17:00' must be hours"),
        ("0900-1800", "'0900-1800' must be hours"),
        ("Mon 09:00", "'09:00' must be hours"),
        ("Mon 09:00am-05:00pm", "'09:00am-05:00pm' must be hours"),
        ("Mon 09:00-10:00 Tue 09:00-10:00", "'09:00-10:00 Tue 09:00-10:00' must be hours"),
        ("Mon \u0660\u0669:00-18:00", "must be a day"),
        ("Mon 24:00-24:00", "24:00 is not a valid start; use 00:00 to 23:59"),
        ("Mon 09:60-11:00", "09:60 is not a valid start"),
        ("Mon 09:00-24:01", "24:01 is not a valid end; use 00:01 to 24:00"),
        ("Mon 09:00-10:60", "10:60 is not a valid end"),
        ("Mon 09:00-99:00", "99:00 is not a valid end"),
        (
            "Mon 09:00-09:00",
            "'Mon 09:00-09:00' is never open; hours end after they start. The whole day is 00:00-24:00",
        ),
        ("22:00-06:00", "'22:00-06:00' crosses midnight; write 22:00-24:00, 00:00-06:00"),
        ("Mon-Fri 22:00-06:30", "crosses midnight; write Mon-Fri 22:00-24:00, Tue-Sat 00:00-06:30"),
        ("Sun 22:00-06:00", "crosses midnight; write Sun 22:00-24:00, Mon 00:00-06:00"),
        ("Sat-Sun 22:00-00:00", "crosses midnight; write Sat-Sun 22:00-24:00"),
    ],
)
def test_a_wrong_text_is_refused_and_the_error_says_which_part(text: object, says: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=re.escape(says)) as raised:
        SendWindow.parse(text)
    assert raised.value.field == "send_window"
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("text", ["22:00-06:00", "Thu-Mon 22:00-06:30", "Sun 22:00-06:00", "Fri-Sun 22:00-00:00"])
def test_what_the_error_suggests_for_a_night_can_be_pasted(text: str) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        SendWindow.parse(text)
    suggested = SendWindow.parse(raised.value.problem.partition("; write ")[2])
    assert suggested.is_open(datetime(2026, 11, 29, 23, 59, tzinfo=NEW_YORK), NEW_YORK)
    assert not suggested.is_open(datetime(2026, 11, 29, 12, tzinfo=NEW_YORK), NEW_YORK)


# --- when it is open


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CASES = [
    # before it opens, at the first moment, at the last, at the end
    ("Mon-Fri 09:00-18:00", "America/New_York", "2026-01-05T13:59:59.999999", "2026-01-05T14:00"),
    ("Mon-Fri 09:00-18:00", "America/New_York", "2026-01-05T14:00", "2026-01-05T14:00"),
    ("Mon-Fri 09:00-18:00", "America/New_York", "2026-01-05T22:59:59.999999", "2026-01-05T22:59:59.999999"),
    ("Mon-Fri 09:00-18:00", "America/New_York", "2026-01-05T23:00", "2026-01-06T14:00"),
    # over a weekend, over a week, over a lunch break
    ("Mon-Fri 09:00-18:00", "America/New_York", "2026-01-09T23:00", "2026-01-12T14:00"),
    ("Mon 09:00-10:00", "America/New_York", "2026-01-05T15:00", "2026-01-12T14:00"),
    ("09:00-12:00, 13:00-18:00", "America/New_York", "2026-01-05T17:30", "2026-01-05T18:00"),
    # open until midnight, and on
    ("Mon 20:00-24:00", "America/New_York", "2026-01-06T04:59:59", "2026-01-06T04:59:59"),
    ("Mon 20:00-24:00", "America/New_York", "2026-01-06T05:00", "2026-01-13T01:00"),
    ("Mon 20:00-24:00, Tue 00:00-01:00", "America/New_York", "2026-01-06T05:00", "2026-01-06T05:00"),
    # the day of the week is the recipient's
    ("Mon 00:00-24:00", "Pacific/Auckland", "2026-01-04T10:59", "2026-01-04T11:00"),
    ("Sun 00:00-24:00", "Pacific/Honolulu", "2026-01-05T09:59", "2026-01-05T09:59"),
    # over the change of the clock, the hours stay those of the wall clock
    ("09:00-18:00", "America/New_York", "2026-03-07T23:00", "2026-03-08T13:00"),
    ("09:00-18:00", "America/New_York", "2026-10-31T22:00", "2026-11-01T14:00"),
    # spring: 02:00 to 03:00 does not exist
    ("02:30-04:00", "America/New_York", "2026-03-08T06:00", "2026-03-08T07:00"),
    ("02:30-04:00", "America/New_York", "2026-03-08T06:00:00.5", "2026-03-08T07:00"),
    ("02:30-03:00", "America/New_York", "2026-03-08T06:00", "2026-03-09T06:30"),
    ("Sun 02:15-02:45", "America/New_York", "2026-03-08T06:00", "2026-03-15T06:15"),
    ("01:30-02:30", "America/New_York", "2026-03-08T06:59:59", "2026-03-08T06:59:59"),
    ("01:30-02:30", "America/New_York", "2026-03-08T07:00", "2026-03-09T05:30"),
    # autumn: 01:00 to 02:00 happens twice
    ("01:30-01:45", "America/New_York", "2026-11-01T05:00", "2026-11-01T05:30"),
    ("01:30-01:45", "America/New_York", "2026-11-01T05:45", "2026-11-01T06:30"),
    ("01:30-01:45", "America/New_York", "2026-11-01T06:45", "2026-11-02T06:30"),
    ("01:00-01:30", "America/New_York", "2026-11-01T05:30", "2026-11-01T06:00"),
    # half an hour of daylight saving time
    ("02:15-02:45", "Australia/Lord_Howe", "2026-10-03T15:00", "2026-10-03T15:30"),
    ("02:00-02:30", "Australia/Lord_Howe", "2026-10-03T15:00", "2026-10-04T15:00"),
    ("01:45-02:00", "Australia/Lord_Howe", "2026-04-04T15:00", "2026-04-04T15:15"),
    # a day that did not exist: Friday, 30 December 2011
    ("Fri 09:00-10:00", "Pacific/Apia", "2011-12-29T20:00", "2012-01-05T19:00"),
    ("Thu-Sat 00:00-24:00", "Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00"),
    ("Sat 00:00-24:00", "Pacific/Apia", "2011-12-29T10:00", "2011-12-30T10:00"),
    # quarters of hours, half hours, and a change at midnight
    ("09:00-18:00", "Asia/Kathmandu", "2026-01-05T00:00", "2026-01-05T03:15"),
    ("09:00-18:00", "America/St_Johns", "2026-03-08T00:00", "2026-03-08T11:30"),
    ("00:00-00:30", "America/St_Johns", "2006-10-29T02:31", "2006-10-29T03:30"),
    ("00:30-02:00", "Africa/Cairo", "2026-04-23T21:00", "2026-04-23T22:00"),
    # Ramadan: one hour back in February, forward in March
    ("09:00-18:00", "Africa/Casablanca", "2026-02-14T18:00", "2026-02-15T09:00"),
    ("09:00-18:00", "Africa/Casablanca", "2026-03-21T18:00", "2026-03-22T08:00"),
]


@pytest.mark.parametrize(("text", "zone", "moment", "opening"), CASES)
def test_a_window_opens_by_the_wall_clock_of_the_zone(text: str, zone: str, moment: str, opening: str) -> None:
    window, found_in = SendWindow.parse(text), ZoneInfo(zone)
    assert window.next_opening(utc(moment), found_in) == utc(opening)
    assert window.is_open(utc(moment), found_in) == (moment == opening)
    assert window.is_open(utc(opening), found_in)


def test_an_opening_is_in_utc_whatever_the_zone_of_the_moment() -> None:
    window = SendWindow.parse("09:00-18:00")
    for hour in (8, 9, 20):
        assert window.next_opening(datetime(2026, 1, 5, hour, tzinfo=NEW_YORK), NEW_YORK).tzinfo is UTC


def test_a_moment_whose_wall_time_does_not_exist_counts_as_what_it_is_in_utc() -> None:
    missing = datetime(2026, 3, 8, 2, 30, tzinfo=NEW_YORK)  # 07:30 in UTC, when the clock shows 03:30
    assert not SendWindow.parse("02:00-03:00").is_open(missing, NEW_YORK)
    assert SendWindow.parse("03:00-04:00").is_open(missing, NEW_YORK)
    assert SendWindow.parse("03:00-04:00").next_opening(missing, NEW_YORK) == utc("2026-03-08T07:30")


def test_a_moment_without_a_time_zone_is_refused() -> None:
    window, naive = SendWindow.parse("09:00-18:00"), datetime(2026, 1, 5)  # noqa: DTZ001  the point
    with pytest.raises(ValueError, match="moment must have a time zone"):
        window.is_open(naive, NEW_YORK)
    with pytest.raises(ValueError, match="moment must have a time zone"):
        window.next_opening(naive, NEW_YORK)


CHANGES = [
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Europe/London", "2026-03-29T01:00"),
    ("Europe/London", "2026-10-25T01:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Africa/Casablanca", "2026-02-15T02:00"),
    ("Africa/Casablanca", "2026-03-22T02:00"),
    ("Africa/Cairo", "2026-04-23T22:00"),
    ("Africa/Cairo", "2026-10-29T21:00"),
    ("America/St_Johns", "2006-10-29T02:31"),
    ("Asia/Kathmandu", "1985-12-31T18:30"),
    ("America/Noronha", "2000-10-15T01:00"),  # a week after the change before
    ("Europe/Berlin", "2060-03-28T01:00"),  # by the rule, beyond the table of changes
]
near_midnight = st.integers(0, 4 * 60)
minutes = st.one_of(near_midnight, st.integers(0, DAY - 1))
hours = st.tuples(minutes, st.one_of(st.integers(1, 90), st.integers(1, DAY))).map(
    lambda drawn: (drawn[0], min(drawn[0] + drawn[1], DAY))
)
entries = st.lists(st.tuples(st.sets(st.integers(0, 6), min_size=1), hours), min_size=1, max_size=4)


def opens(entries: list[tuple[set[int], tuple[int, int]]], moment: datetime, zone: ZoneInfo) -> bool:
    local = moment.astimezone(zone)
    minute = local.hour * 60 + local.minute
    return any(local.weekday() in days and start <= minute < end for days, (start, end) in entries)


@settings(max_examples=400)
@given(
    entries=entries,
    change=st.sampled_from(CHANGES),
    seconds=st.one_of(st.integers(-10_800, 10_800), st.integers(-9 * 86_400, 2 * 86_400)),
)
def test_the_next_opening_is_the_first_minute_that_a_search_finds(
    entries: list[tuple[set[int], tuple[int, int]]], change: tuple[str, str], seconds: int
) -> None:
    text = ", ".join(
        f"{DAYS[day]} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
        for days, (start, end) in entries
        for day in days
    )
    window, zone = SendWindow.parse(text), ZoneInfo(change[0])
    moment = utc(change[1]) + timedelta(seconds=seconds)
    expected = moment
    while not opens(entries, expected, zone):
        expected = expected.replace(second=0) + MINUTE  # all offsets here are whole minutes
    assert window.is_open(moment, zone) == (expected == moment)
    assert window.next_opening(moment, zone) == expected
    assert SendWindow.parse(str(window)) == window


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_the_changes_that_are_tried_are_changes(zone: str, change: str) -> None:
    at = utc(change)
    offsets = {moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in (at - timedelta(seconds=1), at)}
    assert len(offsets) == 2


# --- zones


@pytest.mark.parametrize("name", ["America/New_York", "UTC", "US/Eastern", "America/Argentina/Ushuaia", "Etc/GMT+5"])
def test_a_zone_is_found_by_its_name(name: str) -> None:
    assert zone_named(name, "timezone").key == zone_named(f" {name} ", "timezone").key == name


USE = "use the name of a time zone in the tz database, such as America/New_York or UTC"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is blank; set it to the name of a time zone in the tz database, such as America/New_York"),
        (" ", "is blank"),
        (None, "must be the name of a time zone in the tz database, such as America/New_York or UTC, not NoneType"),
        (-5, "not int"),
        (NEW_YORK, "not ZoneInfo"),
        ("America/New York", "is not a time zone; did you mean America/New_York?"),
        ("america/new_york", "is not a time zone; did you mean America/New_York?"),
        ("Europe/Berlln", "'Europe/Berlln' is not a time zone; did you mean Europe/Berlin?"),
        ("America", f"'America' is not a time zone; {USE}"),
        ("Africa/Nowhere", f"'Africa/Nowhere' is not a time zone; {USE}"),
        ("EST", "EST does not say whether daylight saving time applies; use the name of a place: America/New_York"),
        ("pst", "use the name of a place: America/Los_Angeles"),
        ("MST", "America/Denver, or America/Phoenix for most of Arizona"),
        ("localtime", f"is not a time zone; {USE}"),
        ("posixrules", f"is not a time zone; {USE}"),
        ("Factory", f"is not a time zone; {USE}"),
        ("+01:00", f"is not a time zone; {USE}"),
        ("zone.tab", f"is not a time zone; {USE}"),
        ("\ud800", f"is not a time zone; {USE}"),
        ("UTC\0", f"is not a time zone; {USE}"),
    ],
)
def test_what_names_no_zone_is_refused(name: object, says: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=re.escape(says)) as raised:
        zone_named(name, "column tz")
    assert raised.value.field == "column tz"


@pytest.mark.parametrize(
    "name",
    [
        "/etc/localtime",
        "../../etc/passwd",
        "America/../UTC",
        "right/UTC",
        "posix/UTC",
        "/usr/share/zoneinfo/UTC",
        "UTC/",
    ],
)
def test_a_path_is_no_zone(name: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match="is not a time zone"):
        zone_named(name, "timezone")


@pytest.mark.parametrize("name", ["Mary", "Mary Smith", "+16505550199", "mary@clinic.example", "Africa/" + "x" * 99])
def test_the_value_of_a_wrong_column_is_not_quoted(name: str) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        zone_named(name, "timezone")
    assert str(raised.value) == f"timezone: is not a time zone; {USE}"
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("number", "zone"),
    [
        ("+14155550100", "America/Los_Angeles"),  # a US mobile or landline: they share area codes
        ("+4915112345678", "Europe/Berlin"),
        ("+493012345678", "Europe/Berlin"),
        ("+442079460123", "Europe/London"),
        ("+447400123456", None),  # a UK mobile, perhaps of Jersey
        ("+61412345678", None),  # an Australian mobile
        ("+18005550100", None),
        ("+447700900123", None),  # not in use
        ("+999", None),
        ("4155550100", None),
        ("", None),
    ],
)
def test_a_number_has_a_zone_if_there_is_no_other(number: str, zone: str | None) -> None:
    found = zone_of_number(number)
    assert (found and found.key) == zone


def test_a_dag_file_that_names_a_window_does_not_load_the_data_of_phone_numbers() -> None:
    code = (
        "import sys; from airflow_provider_apptoto.outbox.window import SendWindow; SendWindow.parse('09:00-18:00'); "
        "print(sorted({'airflow', 'pendulum', 'phonenumbers', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
