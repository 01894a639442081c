"""``[apptoto] ledger_secret``: what the ledger's hashes are keyed with, beside the salt that stands in the store."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

_MIN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class LedgerSecret:
    """Secrets of the deployment. Whoever reads a store without them can't find a recipient out by trying all numbers.

    :param values: the newest first; empty where none is set.
    """

    values: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str, source: str) -> LedgerSecret:
        """Read ``new,old``: messages are looked up under each secret, and written under the first.

        :param source: where it is set.
        :raises ApptotoConfigurationError: one is too short to be a secret.
        """
        values = tuple(part.strip() for part in text.split(","))
        if min(map(len, values)) < _MIN_LENGTH:
            msg = f"has to be one secret, or several with commas between, of at least {_MIN_LENGTH} characters each"
            raise ApptotoConfigurationError(source, msg)
        return cls(values)

    def keys(self, salt: bytes) -> list[bytes]:
        """Return what hashes are keyed with, the newest first.

        :param salt: the store's.
        """
        return [hmac.new(value.encode(), salt, hashlib.sha256).digest() for value in self.values] or [salt]

    def checks(self, salt: bytes) -> list[str]:
        """Return what a store keeps of each secret, also of none, to tell it from another one."""
        return [hmac.new(key, b"check", hashlib.sha256).hexdigest()[:16] for key in self.keys(salt)]


def other_secret(where: str) -> str:
    """Say that a store was used with another secret."""
    return (
        f"the hashes in {where} are keyed with another ledger_secret, so which messages were sent can't be looked up. "
        "Set [apptoto] ledger_secret to that one, or to NEW,OLD"
    )
