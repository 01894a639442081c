"""``[apptoto] ledger_secret``, which keys the hashes in the ledger together with the salt of the store."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

_MIN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class LedgerSecret:
    """Secrets of the deployment. Without them, recipients can't be found by hashing all phone numbers.

    :param values: newest first; empty if none is set.
    """

    values: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str, source: str) -> LedgerSecret:
        """Read ``new,old``: messages are looked up under each secret, and written under the first.

        :param source: the option or variable that sets it.
        :raises ApptotoConfigurationError: a secret is too short.
        """
        values = tuple(part.strip() for part in text.split(","))
        if min(map(len, values)) < _MIN_LENGTH:
            msg = f"must be one secret, or several separated by commas, of at least {_MIN_LENGTH} characters each"
            raise ApptotoConfigurationError(source, msg)
        return cls(values)

    def keys(self, salt: bytes) -> list[bytes]:
        """Return the hash keys, newest first.

        :param salt: salt of the store.
        """
        return [hmac.new(value.encode(), salt, hashlib.sha256).digest() for value in self.values] or [salt]

    def checks(self, salt: bytes) -> list[str]:
        """Return a digest of each secret, or of the salt without a secret, so that a store detects other secrets."""
        return [hmac.new(key, b"check", hashlib.sha256).hexdigest()[:16] for key in self.keys(salt)]


def other_secret(where: str) -> str:
    """Return the error text for a store that was used with another secret."""
    return (
        f"the hashes in {where} are keyed with another ledger_secret, so sent messages can't be looked up. "
        "Set [apptoto] ledger_secret to the old secret, or to NEW,OLD"
    )
