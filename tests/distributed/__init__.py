"""Two Celery workers, Redis and PostgreSQL: a worker and the database are killed, and the server's list is compared.

``make distributed`` prints the table.
"""

from __future__ import annotations
