"""Contacts and address books as Apptoto's API shows and changes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.database import insert, update
from airflow_provider_apptoto.sandbox.appointments.values import Given, as_json, normalized, refusal

if TYPE_CHECKING:
    import sqlite3

    from airflow_provider_apptoto.sandbox.appointments.database import Database


def save_contacts(database: Database, body: Given, *, may_update: bool) -> list[dict[str, Any]]:
    """Store the contacts of a request, and return them. If one is invalid, none is stored (ASSUMED).

    :param body: the request's body.
    :param may_update: whether a contact whose ``id`` or ``external_id`` exists is changed (PUT) or refused (POST).
    :raises HTTPException: a contact is invalid.
    """
    contacts = body.items("contacts")
    if contacts is None:
        raise refusal("contacts is required.")
    with database.writing() as connection:
        saved = []
        for contact in contacts:
            found = _row(database, contact.id("id"), contact.text("external_id"))
            if found is not None and not may_update:
                raise refusal(f"{contact.label('external_id')} is that of contact {found['id']}.")
            fields = {**_empty(), **(json.loads(found["fields"]) if found else {})}
            fields = _changed(contact, fields)
            if found is None:
                if not fields["name"]:
                    raise refusal(f"{contact.label('name')} is required, or first_name and last_name.")
                book = _address_book(database, connection, contact)
                external_id = contact.text("external_id")
                saved.append(
                    insert(
                        connection, "contacts", external_id=external_id, address_book_id=book, fields=as_json(fields)
                    )
                )
            else:
                update(connection, "contacts", found["id"], fields=as_json(fields))
                saved.append(int(found["id"]))
    return [_shown(_row(database, contact_id)) for contact_id in saved]


def found_contacts(database: Database, page: int, page_size: int) -> list[dict[str, Any]]:
    """Return a page of contacts. OBSERVED: a filter by address book has no effect."""
    rows = database.rows("SELECT * FROM contacts ORDER BY id LIMIT ? OFFSET ?", [page_size, page_size * (page - 1)])
    return [_shown(row) for row in rows]


def found_contact(database: Database, contact_id: int | None, external_id: str | None) -> dict[str, Any] | None:
    """Return one contact, by either id."""
    row = _row(database, contact_id, external_id)
    return None if row is None else _shown(row)


def delete_contact(database: Database, contact_id: int) -> None:
    """Delete a contact."""
    with database.writing() as connection:
        connection.execute("DELETE FROM contacts WHERE id = ?", [contact_id]).close()


def address_books(database: Database) -> list[dict[str, Any]]:
    """Return all address books."""
    return [dict(row) for row in database.rows("SELECT id, name FROM address_books ORDER BY id")]


def contact_by(
    database: Database, contact_id: int | None, external_id: str | None, phone: str | None = None
) -> dict[str, Any] | None:
    """Return a contact with its first ``phone`` and ``email``, by an id or by a number in E.164."""
    row = _row(database, contact_id, external_id)
    if row is None and phone:
        rows = database.rows("SELECT * FROM contacts WHERE instr(fields, ?) ORDER BY id LIMIT 1", [f'"{phone}"'])
        row = rows[0] if rows else None
    if row is None:
        return None
    contact = _shown(row)
    phones = sorted(contact["phone_numbers"], key=lambda each: not each.get("is_primary"))
    emails = sorted(contact["email_addresses"], key=lambda each: not each.get("is_primary"))
    return {
        **contact,
        "phone": phones[0]["number"] if phones else "",
        "email": emails[0]["address"] if emails else "",
    }


def _row(database: Database, contact_id: int | None, external_id: str | None = None) -> Any:
    condition, value = ("id = ?", contact_id) if contact_id is not None else ("external_id = ?", external_id)
    rows = database.rows(f"SELECT * FROM contacts WHERE {condition} LIMIT 1", [value])  # noqa: S608  fixed
    return rows[0] if rows else None


def _shown(row: Any) -> dict[str, Any]:
    names = ("id", "external_id", "address_book_id")
    return {**{name: row[name] for name in names}, **json.loads(row["fields"])}


def _empty() -> dict[str, Any]:
    return {
        "name": "",
        "first_name": "",
        "last_name": "",
        "phone_numbers": [],
        "email_addresses": [],
        "custom_data": {},
    }


def _changed(contact: Given, fields: dict[str, Any]) -> dict[str, Any]:
    for name in ("first_name", "last_name", "name"):
        if name in contact:
            fields[name] = contact.text(name)
    if "name" not in contact and ("first_name" in contact or "last_name" in contact):
        fields["name"] = f"{fields['first_name']} {fields['last_name']}".strip()
    _change_reachability(contact, fields)
    if "custom_data" in contact:
        fields["custom_data"] = contact.mapping("custom_data")
    return fields


def _change_reachability(contact: Given, fields: dict[str, Any]) -> None:
    phones, emails = contact.items("phone_numbers"), contact.items("email_addresses")
    if phones is not None:
        fields["phone_numbers"] = [_phone(each, "number") for each in phones]
    elif "phone" in contact:
        fields["phone_numbers"] = [_phone(contact, "phone", is_primary=True)]
    if emails is not None:
        fields["email_addresses"] = [_email(each, "address") for each in emails]
    elif "email" in contact:
        fields["email_addresses"] = [_email(contact, "email", is_primary=True)]
    if "add_phone" in contact:
        fields["phone_numbers"].append(_phone(contact, "add_phone"))
    if "add_email" in contact:
        fields["email_addresses"].append(_email(contact, "add_email"))


def _phone(given: Given, name: str, *, is_primary: bool = False) -> dict[str, Any]:
    number = given.text(name)
    if not number:
        raise refusal(f"{given.label(name)} is required.")
    return {
        "number": number,
        "normalized": normalized(number),
        "type": given.text("type"),
        "is_mobile": bool(given.flag("is_mobile")),
        "is_primary": is_primary or bool(given.flag("is_primary")),
    }


def _email(given: Given, name: str, *, is_primary: bool = False) -> dict[str, Any]:
    address = given.text(name)
    if not address:
        raise refusal(f"{given.label(name)} is required.")
    return {"address": address, "is_primary": is_primary or bool(given.flag("is_primary"))}


def _address_book(database: Database, connection: sqlite3.Connection, contact: Given) -> int:
    book_id, name = contact.id("address_book_id"), contact.text("address_book")
    if book_id is not None:
        if not database.rows("SELECT 1 FROM address_books WHERE id = ?", [book_id]):
            raise refusal(f"{contact.label('address_book_id')}: there is no address book {book_id}.")
        return book_id
    if not name:
        raise refusal(f"{contact.label('address_book')} or address_book_id is required.")
    rows = database.rows("SELECT id FROM address_books WHERE name = ?", [name])
    return int(rows[0]["id"]) if rows else insert(connection, "address_books", name=name)
