"""Base URLs are completed, or refused if the key could be sent to another server or read in transit."""

from __future__ import annotations

import pytest

from airflow_provider_apptoto.client import ApptotoClient, ApptotoConfigurationError, ApptotoError
from airflow_provider_apptoto.client.base_url import check_base_url


def test_a_configuration_error_can_be_caught_as_what_it_is() -> None:
    with pytest.raises(ApptotoError):
        check_base_url("")
    with pytest.raises(ValueError, match="base URL"):
        check_base_url("")


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.apptoto.com", "https://api.apptoto.com/v1"),
        ("https://api.apptoto.com/", "https://api.apptoto.com/v1"),
        ("https://api.apptoto.com//", "https://api.apptoto.com/v1"),
        ("api.apptoto.com", "https://api.apptoto.com/v1"),
        ("api.apptoto.com:8443", "https://api.apptoto.com:8443/v1"),
        ("https://api.apptoto.com/v1", "https://api.apptoto.com/v1"),
        ("https://api.apptoto.com/v2/", "https://api.apptoto.com/v2"),
        ("https://gateway.clinic.example/apptoto/v1", "https://gateway.clinic.example/apptoto/v1"),
        ("gateway.clinic.example/a-b_c~d.e/", "https://gateway.clinic.example/a-b_c~d.e"),
        ("https://10.0.0.1:8443/x", "https://10.0.0.1:8443/x"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/v1"),
        ("localhost:8025", "https://localhost:8025/v1"),
        ("http://localhost", "http://localhost/v1"),
        ("http://localhost:8025", "http://localhost:8025/v1"),
        ("http://127.0.0.1:8025/v2", "http://127.0.0.1:8025/v2"),
        ("http://127.1.2.3", "http://127.1.2.3/v1"),
        ("http://[::1]:8025", "http://[::1]:8025/v1"),
    ],
)
def test_a_base_url_is_completed_and_keeps_its_port_and_path(url: str, normal: str) -> None:
    assert check_base_url(url) == normal
    assert check_base_url(normal) == normal


@pytest.mark.parametrize(
    "url",
    [
        "http://api.apptoto.com",
        "http://api.apptoto.com:443",
        "http://10.0.0.1",
        "http://192.168.0.1:8025",
        "http://0.0.0.0",
        "http://[::]",
        "http://[2001:db8::1]",
        "http://[fe80::1]",
        "http://169.254.169.254",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil-localhost",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.0.0.1",
        "http://0177.0.0.1",
    ],
)
def test_plain_http_is_for_loopback_only(url: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match="plain http") as raised:
        check_base_url(url)
    assert raised.value.field == "host"


@pytest.mark.parametrize(
    "url",
    [
        "https://somebody@api.apptoto.com",
        "https://somebody:secret@api.apptoto.com",
        "https://api.apptoto.com@evil.example",
        "https://api.apptoto.com:443@evil.example/v1",
        "https://api.apptoto.com\\@evil.example",
        "https://api.apptoto.com/@evil.example",
        "http://localhost@evil.example",
        "api.apptoto.com@evil.example",
        "https://@api.apptoto.com",
    ],
)
def test_a_user_name_in_a_base_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match="user name") as raised:
        check_base_url(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "https://",
        "https:///v1",
        "https:api.apptoto.com",
        "https:/api.apptoto.com",
        "//api.apptoto.com",
        "ftp://api.apptoto.com",
        "file:///etc/passwd",
        "javascript://api.apptoto.com",
        "https://https://api.apptoto.com",
        "https://api.apptoto.com?key=value",
        "https://api.apptoto.com/v1?key=value",
        "https://api.apptoto.com/v1?",
        "https://api.apptoto.com#there",
        "https://api.apptoto.com/v1#",
        "https://api.apptoto.com\\evil.example",
        "https:\\\\api.apptoto.com",
        "https://api.apptoto.com/v1\\..",
        "https://api.apptoto.com/%2e%2e",
        "https://api.apptoto.com/v1;a=b",
        "https://api.apptoto.com/{{ path }}",
        " https://api.apptoto.com",
        "https://api.apptoto.com ",
        "https://api. apptoto.com",
        "https://api.apptoto.com\n",
        "https://api.apptoto.com/\r\nHost: evil.example",
        "https://api.apptoto.com\t",
        "https://api.apptoto.com/v1\0",
        "https://api.appto\u0442o.com",
        "https://api\u3002apptoto\u3002com",
        "https://api.apptoto.com/\u00fc",
        "https://api_1.apptoto.com",
        "https://api.apptoto.com:",
        "https://api.apptoto.com:port",
        "https://api.apptoto.com:-1",
        "https://api.apptoto.com:443443",
        "https://api.apptoto.com:\uff14\uff14\uff13",
        "https://[::1",
        "https://::1",
        "https://[::1]evil.example",
        "https://[fe80::1%25eth0]",
        "https://[evil.example]",
    ],
    ids=ascii,
)
def test_whatever_readers_of_urls_might_disagree_on_is_refused(url: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match="not a base URL") as raised:
        check_base_url(url)
    assert raised.value.field == "host"
    with pytest.raises(ApptotoConfigurationError):
        ApptotoClient(base_url=url, login="clinic@clinic.example", api_key="sekret-key")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.apptoto.com:65536",
        "https://api.apptoto.com:0",
        "https://[:::]",
        "https://[1.2.3.4]",
        "https://api..apptoto.com",
        "https://.",
        "https://-",
    ],
)
def test_a_base_url_that_can_never_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(ApptotoConfigurationError):
        check_base_url(url)


def test_one_server_has_one_base_url_whatever_the_case_it_is_written_in() -> None:
    assert check_base_url("HTTPS://API.Apptoto.COM/V1") == "https://api.apptoto.com/V1"
    assert check_base_url("http://LOCALHOST:8025") == "http://localhost:8025/v1"
