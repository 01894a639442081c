"""Limit the notifications to one recipient, and count those held back."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.outbox.guards import WithheldError
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.schema import storms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.limit import Limit

_ADD = {
    "sqlite": sqlite.insert(storms).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(storms).on_conflict_do_nothing(),
}


class HeldBackChangedError(Exception):
    """Other notifications were held back, or reported as such, since :meth:`Storm.held_back`; read it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """The notifications of one account.

    :param database: the state database.
    :param hash_keys: keys of the hashes of recipients, newest first.
    :param account: base URL and login.
    :param limit: how many notifications a recipient may get.
    """

    database: StateDatabase
    hash_keys: Sequence[bytes]
    account: tuple[str, str]
    limit: Limit

    def held_back(self, to: str) -> int:
        """Return how many notifications to a recipient were held back and not yet reported.

        :raises LedgerStoreError: the database can't be used.
        """
        query = select(storms.c.held_back).where(*self._row(to))
        with self.database.transaction() as connection:
            return connection.execute(query).scalar() or 0

    def depart(self, to: str, reported: int | None) -> None:
        """Take one of the notifications that the limit allows, or count this one as held back.

        :param reported: the number of held back notifications that the text reports; ``None``: it reports nothing,
            whatever was held back.
        :raises WithheldError: the limit is reached.
        :raises HeldBackChangedError: the text reports a number that is no longer correct.
        :raises LedgerStoreError: the database can't be used.
        """
        row = self._row(to)
        with self.database.transaction() as connection:
            # writing first locks the file in SQLite
            connection.execute(_ADD[self.database.dialect].values(**self._key(to), sent_at="[]", held_back=0))
            found = connection.execute(select(storms).where(*row).with_for_update()).one()
            now = time.time()
            # a clock that was set back must not extend the window
            recent = [each for each in json.loads(found.sent_at) if now - self.limit.seconds < each <= now]
            is_full = len(recent) >= self.limit.count
            if not is_full and reported is not None and found.held_back != reported:
                raise HeldBackChangedError
            left = found.held_back + 1 if is_full else found.held_back if reported is None else 0
            sent_at = recent if is_full else [*recent, now]
            changes = {"held_back": left, "sent_at": json.dumps(sent_at)}
            connection.execute(storms.update().where(*row).values(**changes))
        if is_full:
            reason = (
                f"storm_limit={str(self.limit)!r} is reached for this recipient. The next notification says how "
                'many were held back. To send all of them, set storm_limit="off"'
            )
            raise WithheldError(Outcome.CAPPED, reason)

    def _key(self, to: str) -> dict[str, str | None]:
        account = hashlib.sha256(json.dumps(self.account).encode()).hexdigest()[:32]
        return {"recipient": recipient_hash(self.hash_keys[0], to), "account": account}

    def _row(self, to: str) -> list[ColumnElement[bool]]:
        return [storms.c[name] == value for name, value in self._key(to).items()]
