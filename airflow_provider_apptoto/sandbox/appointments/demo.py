"""A clinic's day, to try appointments on: invented people, with numbers that are reserved for fiction."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

CALENDAR = "Northside Clinic"
TIME_ZONE = "America/Los_Angeles"
_OPENS = time(8)
_MINUTES = 15
_SERVICES = ("Check-up", "Vaccination", "Blood test", "Physiotherapy", "Consultation")
_DOCTORS = ("Dr. Amara Okafor", "Dr. Lena Fischer", "Dr. Ravi Menon")
_NAMES = (
    "Ana Lopez", "Ben Carter", "Chloe Dubois", "David Kim", "Elif Kaya", "Felix Wagner", "Grace Mensah",
    "Hugo Silva", "Ines Rossi", "Jonas Berg", "Keiko Tanaka", "Liam Murphy", "Maya Patel", "Noah Cohen",
    "Olga Petrova", "Pablo Ruiz", "Quinn Taylor", "Rosa Moreno", "Samuel Eze", "Tara Nguyen", "Umar Farouk",
    "Vera Novak", "Wei Zhang", "Ximena Torres", "Yusuf Demir", "Zoe Martin", "Arthur Blake", "Bianca Costa",
    "Cyrus Amini", "Dora Horvat", "Emil Larsen", "Fatima Haddad", "Gita Sharma", "Henry Walsh", "Irene Papas",
    "Jack O'Neill", "Karin Lund", "Luca Bianchi", "Mei Lin", "Nora Jensen",
)  # fmt: skip
# The last four digits. Those of 202-555 are magic numbers (magic.py); the owners of the others answer by click only.
_MAGIC = (
    "0102", "0104", "0106", "0108", "0103", "0105", "0107", "0109",  # confirm
    "0112", "0115", "0118",  # cancel
    "0124", "0128",  # reschedule
    "0133", "0136",  # ask something
    "0145",  # STOP
    "0150", "0150", "0150",  # never answer
    "0151", "0152", "0153",  # answer only a call
    "0163", "0166",  # fail late
    "0170",  # can't be reached
    "0180",  # opted out
)  # fmt: skip
_STATES = {27: "reminded", 30: "reminded", 33: "confirmed", 36: "not_coming"}


def clinic_day(day: date | None = None) -> list[dict[str, Any]]:
    """Return 40 appointments, as ``POST /v1/events`` takes them. The same day gives the same appointments.

    :param day: None is tomorrow, where the clinic is.
    """
    zone = ZoneInfo(TIME_ZONE)
    day = day or datetime.now(zone).date() + timedelta(days=1)
    return [_appointment(number, name, day, zone) for number, name in enumerate(_NAMES)]


def _appointment(number: int, name: str, day: date, zone: ZoneInfo) -> dict[str, Any]:
    start = datetime.combine(day, _OPENS, zone) + timedelta(minutes=_MINUTES * number)
    service, doctor = _SERVICES[number % len(_SERVICES)], _DOCTORS[number % len(_DOCTORS)]
    magic = _MAGIC[number * 7 % 40] if number * 7 % 40 < len(_MAGIC) else None
    phone = f"+1202555{magic}" if magic else f"+1650555{100 + number:04}"
    address = f"{name.lower().replace(' ', '.').replace(chr(39), '')}@example.com"
    return {
        "calendar": CALENDAR,
        "external_id": f"clinic-{day.isoformat()}-{number + 1:02}",
        "title": f"{service} with {doctor}",
        "location": f"Room {number % 4 + 1}",
        "start_time": start.isoformat(),
        "end_time": (start + timedelta(minutes=_MINUTES)).isoformat(),
        "time_zone": TIME_ZONE,
        "custom_data": {"service": service.lower(), "doctor": doctor},
        "participants": [{"name": name, "phone": phone, "email": address, "state": _STATES.get(number, "initial")}],
    }
