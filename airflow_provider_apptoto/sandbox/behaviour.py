"""The sandbox's account, and what it does as documented, observed and assumed, for ``--help`` and the inbox page."""

from __future__ import annotations

import shlex

HOST = "127.0.0.1"
LOGIN = "sandbox@example.com"
API_KEY = "sandbox-api-key"

DOCUMENTED = (
    "/v1/send_message takes a JSON object and HTTP Basic with the account's e-mail address and an API key.",
    'type is "sms", "call" or "email".',
    "At least one of to, event_id, participant_id; at least one of message, template_id.",
    "to, message, subject, template_id are strings; event_id, participant_id are integers, also as strings.",
    'An accepted message is answered with 200 and {"success": true}.',
    "A message to an event reaches each of its participants, and its dynamic fields are filled for each.",
    (
        "GET /v1/events lists events by begin, end, phone_number, email_address, page (from 1), page_size (30), "
        "include_deleted and include_conversations. By number or address, an event is listed once for each participant "
        "who matches, with that participant only."
    ),
    "GET /v1/event returns one event by id or external_id. Participants have the documented states.",
    (
        "POST /v1/events creates events, and calendars that are missing. PUT creates or changes: participants and "
        "custom_data are replaced as a whole, but a participant who already got a message stays. "
        "DELETE hides one event."
    ),
    "POST and PUT /v1/contacts, with add_phone and add_email.",
    "STOP, END, QUIT or UNSUBSCRIBE by text, STOP or UNSUBSCRIBE by e-mail, and key 9 on the phone opt a person out.",
    "Numbers without + are taken as numbers of the account's country, here the United States.",
)

OBSERVED = (
    (
        "Conversations have messages with id, at, event_type (sent, replied), content, delivery_state, delivery_error, "
        "delivery_failed, send_failed. Participants have event_id beside their conversations."
    ),
    "Events are listed by start time. Parameters that are not documented are ignored, calendar_id too.",
    "A deleted event may be deleted again.",
    (
        "GET /v1/contact and /v1/contacts (address_book_id has no effect), GET /v1/address_books, "
        "DELETE /v1/contacts with a JSON body."
    ),
)

ASSUMED = (
    "The method of /v1/send_message is POST.",
    "Refusals have status 400 (the request), 401 (login or key), 403, 404, 405, 413 (more than 1 MiB) or 422.",
    'Refusals have the body {"success": false, "error": "..."}.',
    "The Content-Type of a message must be application/json.",
    "null and blank texts count as not given, undocumented fields are ignored, ids have at most 18 digits.",
    "A conversation has messages and nothing else, and there is one for each channel. A reply has no delivery fields.",
    "A message changes no state. A reply changes none either, but confirm, cancel and reschedule do.",
    (
        "A message to someone who has opted out is accepted, and its send_failed is true. "
        "The number 202-555-0181 gets the other possible answer, 422."
    ),
    "An unknown event or participant is 404. Without any appointment, all of them exist, and the text stays as sent.",
    "A person without a number or an address for the channel gets nothing, and the message is accepted.",
    (
        "A request with several targets reaches each of them. "
        "Texts to a number or address are not filled, and appear in no conversation."
    ),
    "Dynamic fields without a value are blank. Templates are shown by id. event.time_zone_expanded is not known.",
    (
        "Times keep the offset they came with; without one they are UTC, or in the event's time_zone. "
        "A page has at most 1,000 events."
    ),
    "If one event or contact of a request is invalid, none is stored. POST refuses an external_id that exists.",
    "prevent_calendar_creation refuses an event of an unknown calendar.",
    (
        "There are no credits, quiet hours, Auto Messages or rate limits, and no participants are found in texts. "
        "Add faults to simulate such answers."
    ),
)


def connection_command(login: str, api_key: str, port: int) -> str:
    """Return the command that stores a connection to a sandbox in Airflow.

    The port is a separate field, because *Test Connection* of Airflow 3.3.1 and 3.3.2 needs a stored port.
    """
    fields = {"type": "apptoto", "login": login, "password": api_key, "host": f"http://{HOST}", "port": str(port)}
    options = " ".join(f"--conn-{name} {shlex.quote(value)}" for name, value in fields.items())
    return f"airflow connections add apptoto_default {options}"
