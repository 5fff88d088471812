"""No address leads to this machine, its networks or a cloud's metadata: as written, as resolved, by redirect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools.pages.address import Address, read_address
from keyeloop.tools.pages.fetching import Caps, Fetcher
from tests.tools.pages_site import AskingResolver, NameServer, Reply, Site

PUBLIC = "93.184.216.34"
ZONE: dict[str, list[Any]] = {
    "loop.test": ["127.0.0.1"],
    "loop6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "sixtofour.test": ["2002:7f00:1::"],
    "teredo.test": ["2001:0:7f00:1::"],
    "isatap.test": ["2620:0:2d0::5efe:7f00:1"],
    "ten.test": ["10.1.2.3"],
    "home.test": ["192.168.0.1"],
    "office.test": ["172.31.255.1"],
    "carrier.test": ["100.64.0.1"],
    "meta.test": ["169.254.169.254"],
    "azure.test": ["168.63.129.16"],
    "alibaba.test": ["100.100.100.200"],
    "aws6.test": ["fd00:ec2::254"],
    "zero.test": ["0.0.0.0"],
    "ula.test": ["fd12::1"],
    "link6.test": ["fe80::1"],
    "multi.test": ["224.0.0.251"],
    "mixed.test": [PUBLIC, "10.0.0.1"],
    "mixed6.test": [PUBLIC, "::1"],
    "rebind.test": [[PUBLIC], ["127.0.0.1"]],
    "wiki.lan": ["127.0.0.1"],
    "sly.lan": ["169.254.169.254"],
    "empty.test": [],
}
NOT_PUBLIC = "only pages on the public internet"
ODD = "odd notation"
WRITTEN = {
    "http://127.0.0.1/": NOT_PUBLIC,
    "http://127.8.9.1/": NOT_PUBLIC,
    "https://127.0.0.1:8443/": NOT_PUBLIC,
    "http://0.0.0.0/": NOT_PUBLIC,
    "http://10.0.0.1/": NOT_PUBLIC,
    "http://172.16.0.1/": NOT_PUBLIC,
    "http://192.168.1.1/admin": NOT_PUBLIC,
    "http://169.254.169.254/latest/meta-data/": "metadata",
    "http://168.63.129.16/": "metadata",
    "http://100.100.100.200/": "metadata",
    "http://100.64.0.1/": NOT_PUBLIC,
    "http://192.0.0.1/": NOT_PUBLIC,
    "http://198.18.0.1/": NOT_PUBLIC,
    "http://224.0.0.1/": NOT_PUBLIC,
    "http://255.255.255.255/": NOT_PUBLIC,
    "http://127.0.0.1./": ODD,
    "http://2130706433/": ODD,
    "http://0x7f000001/": ODD,
    "http://0x7f.0x0.0x0.0x1/": ODD,
    "http://0X7F.1/": ODD,
    "http://017700000001/": ODD,
    "http://0177.0.0.1/": ODD,
    "http://127.1/": ODD,
    "http://127.0.1/": ODD,
    "http://127.0.0.1.0x7f/": ODD,
    "http://0/": ODD,
    "http://1.1.1.1.1/": ODD,
    "http://256.256.256.256/": ODD,
    "http://0x/": ODD,
    "http://１２７.０.０.１/": ODD,
    "http://①②⑦.⓪.⓪.①/": ODD,
    "http://127。0。0。1/": ODD,
    "http://127.0.0.1%2f@example.com/": "user name",
    "http://%31%32%37.0.0.1/": "% in its host",
    "http://127.0.0.1%00.example.com/": "% in its host",
    "http://[::1]/": NOT_PUBLIC,
    "http://[0:0:0:0:0:0:0:1]/": NOT_PUBLIC,
    "http://[::]/": NOT_PUBLIC,
    "http://[::ffff:127.0.0.1]/": NOT_PUBLIC,
    "http://[::ffff:7f00:1]/": NOT_PUBLIC,
    "http://[::127.0.0.1]/": NOT_PUBLIC,
    "http://[64:ff9b::a9fe:a9fe]/": "metadata",
    "http://[2002:7f00:0001::]/": NOT_PUBLIC,
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/": NOT_PUBLIC,
    "http://[fe80::1]/": NOT_PUBLIC,
    "http://[fe80::1%25eth0]/": "zone id",
    "http://[fe80::1%eth0]/": "zone id",
    "http://[fd00:ec2::254]/": "metadata",
    "http://[fc00::1]/": NOT_PUBLIC,
    "http://[fec0::1]/": NOT_PUBLIC,
    "http://[ff02::1]/": NOT_PUBLIC,
    "http://[2001:db8::1]/": NOT_PUBLIC,
    "http://[v1.fe80::1]/": "no IPv6 address",
    "http://[::1/": "in brackets",
    "http://::1/": "in brackets",
    "http://user@127.0.0.1/": "user name",
    "http://example.com:80@127.0.0.1/": "user name",
    "http://example.com@10.0.0.1/": "user name",
    "http://127.0.0.1\\@example.com/": "backslash",
    "http:\\\\127.0.0.1/": "backslash",
    "http://127.0.0.1\t.example.com/": "control character",
    "http://exa mple.com/": "a space",
    "http://example.com\r\nHost: 127.0.0.1/": "control character",
    "http:127.0.0.1/": "two slashes",
    "http:/127.0.0.1/": "two slashes",
    "http:///127.0.0.1/": "two slashes",
    "http://": "names no host",
    "http://?x": "names no host",
    "//127.0.0.1/": "no scheme",
    "127.0.0.1": "no scheme",
    "example.com": "no scheme",
    "file:///etc/passwd": "scheme file",
    "file://localhost/etc/passwd": "scheme file",
    "FILE:///etc/passwd": "scheme file",
    "gopher://127.0.0.1:6379/_INFO": "scheme gopher",
    "ftp://127.0.0.1/": "scheme ftp",
    "dict://127.0.0.1:11211/stat": "scheme dict",
    "ldap://127.0.0.1/": "scheme ldap",
    "data:text/html,<p>hello": "scheme data",
    "javascript:alert(1)": "scheme javascript",
    "jar:http://127.0.0.1!/": "scheme jar",
    "view-source:http://127.0.0.1/": "scheme view-source",
    "blob:http://127.0.0.1/x": "scheme blob",
    "unix:///var/run/docker.sock": "scheme unix",
    "http://example.com:22/": "port 22",
    "http://example.com:6379/": "port 6379",
    "http://example.com:0/": "number from 1",
    "http://example.com:99999/": "number from 1",
    "http://example.com:80:80/": "several colons",
    "http://example.com:+80/": "number from 1",
    "http://-example.com/": "no name of a host",
    "http://exa_mple..com/": "no name of a host",
    f"http://{'a' * 64}.com/": "no name of a host",
    "http://example.com/" + "a" * 5000: "5019 characters",
    "": "no scheme",
}
RESOLVED = sorted(set(ZONE) - {"rebind.test", "wiki.lan", "empty.test"})
REDIRECTED = {
    "http://127.0.0.1/": NOT_PUBLIC,
    "http://localhost:22/": "port 22",
    "//169.254.169.254/latest": "metadata",
    "http://[::1]/": NOT_PUBLIC,
    "http://2130706433/": ODD,
    "http://loop.test/": "loop.test stands for 127.0.0.1",
    "http://mapped.test/": NOT_PUBLIC,
    "file:///etc/passwd": "scheme file",
    "gopher://127.0.0.1:6379/_INFO": "scheme gopher",
    "http://user@10.0.0.1/": "user name",
    "data:text/plain,x": "scheme data",
    "http://[::1": "wrong brackets",
    "/again": "leads on more than 3 times",
}


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every connection that is tried; none but those to this machine is made."""
    tried: list[str] = []
    real = httpcore.AnyIOBackend.connect_tcp

    async def connect(self: Any, host: str, *rest: Any, **named: Any) -> Any:
        tried.append(host)
        if not host.startswith("127."):
            raise httpcore.ConnectError("no test leaves this machine")
        return await real(self, host, *rest, **named)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    return tried


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer(ZONE)
    yield server
    server.close()


def test_there_are_enough_cases() -> None:
    assert len(WRITTEN) + len(RESOLVED) + len(REDIRECTED) >= 60


@pytest.mark.parametrize("url", WRITTEN)
async def test_no_forbidden_address_is_connected_to(url: str, names: NameServer, connects: list[str]) -> None:
    with pytest.raises(ToolError) as told:
        await Fetcher(resolver=AskingResolver(names.port)).fetch(url)
    assert WRITTEN[url] in str(told.value) and len(str(told.value)) < 500
    assert not connects and not names.asked


@pytest.mark.parametrize("name", RESOLVED)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_name_leads_inside(scheme: str, name: str, names: NameServer, connects: list[str]) -> None:
    with pytest.raises(ToolError, match=f"{name} stands for .*{NOT_PUBLIC}"):
        await Fetcher(resolver=AskingResolver(names.port)).fetch(f"{scheme}://{name}/")
    assert not connects


async def test_a_name_is_resolved_once_and_that_address_is_used(names: NameServer, connects: list[str]) -> None:
    resolver = AskingResolver(names.port)
    with pytest.raises(ToolError, match=r"rebind\.test:80 could not be connected to"):
        await Fetcher(resolver=resolver).fetch("http://rebind.test/")
    assert connects == [PUBLIC]
    assert [kind for _, kind in names.asked] == ["A", "AAAA"]
    second = await resolver.resolve("rebind.test", 80)  # whoever asked again would have been led here
    assert [str(ip) for ip in second] == ["127.0.0.1"]
    with pytest.raises(ToolError, match=NOT_PUBLIC):
        await Fetcher(resolver=resolver).fetch("http://rebind.test/")
    assert connects == [PUBLIC]


@pytest.mark.parametrize("target", REDIRECTED)
async def test_every_redirect_is_checked(target: str, site: Site, names: NameServer, connects: list[str]) -> None:
    site.routes["/away"] = Reply(status=302, headers={"Location": target})
    site.routes["/again"] = Reply(status=307, headers={"Location": "/again"})
    fetcher = Fetcher([site.host], Caps(redirects=3), AskingResolver(names.port))
    with pytest.raises(ToolError) as told:
        await fetcher.fetch(f"{site.url}/away")
    assert REDIRECTED[target] in str(told.value)
    assert connects == ["127.0.0.1"] * (4 if target == "/again" else 1)


async def test_what_is_allowed_by_name_can_be_opened(site: Site, names: NameServer) -> None:
    site.page("/", "<p>inside")
    resolver = AskingResolver(names.port)
    assert b"inside" in (await Fetcher([site.host]).fetch(site.url)).body
    named = Fetcher(["wiki.lan"], resolver=resolver)
    assert (await named.fetch(f"http://WIKI.lan.:{site.port}/")).body == b"<p>inside"
    for url in (site.url, f"http://localhost:{site.port}/", f"http://loop.test:{site.port}/"):
        with pytest.raises(ToolError, match=f"on port {site.port}"):
            await named.fetch(url)
    with pytest.raises(ToolError, match="on port"):
        await Fetcher([f"127.0.0.1:{site.port + 1}"]).fetch(site.url)


async def test_an_allowed_name_does_not_reach_the_metadata_service(names: NameServer, connects: list[str]) -> None:
    resolver = AskingResolver(names.port)
    with pytest.raises(ToolError, match="metadata"):
        await Fetcher(["sly.lan"], resolver=resolver).fetch("http://sly.lan/")
    assert not connects
    with pytest.raises(ToolError, match="could not be connected"):  # its own number is a plain word
        await Fetcher(["169.254.169.254"], resolver=resolver).fetch("http://169.254.169.254/")
    assert connects == ["169.254.169.254"]


async def test_a_host_without_address_is_told(names: NameServer, connects: list[str]) -> None:
    fetcher = Fetcher(resolver=AskingResolver(names.port))
    for url in ("http://nowhere.test/", "http://empty.test/"):
        with pytest.raises(ToolError, match="there is no host"):
            await fetcher.fetch(url)
    assert not connects


@pytest.mark.parametrize("entry", ["http://wiki.lan", "wiki.lan/x", "wiki.lan/", "a b", "", "127.1", "u@wiki.lan", "*"])
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="is no host to allow"):
        Fetcher([entry])


@settings(max_examples=200, deadline=None)
@given(
    st.text() | st.from_regex(r"(http|https|ftp)://[\[\]@:%.0-9a-fx１。\\\ud800-\ud8ff]{0,20}/?.{0,9}"), st.booleans()
)
def test_any_text_is_an_address_or_refused(text: str, redirected: bool) -> None:
    try:
        address = read_address(text, Address("https", "example.org", 443, "/a") if redirected else None)
    except ToolError as error:
        assert len(str(error)) < 500
        return
    assert read_address(address.text) == address and address.text.isascii()
    assert "@" not in address.authority and address.host == address.host.lower()


async def test_nothing_of_the_user_is_sent_along(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    site.routes["/first"] = Reply(status=301, headers={"Location": "/second#part", "Set-Cookie": "a=b"})
    site.page("/second", "<p>there")
    site.asked.clear()
    page = await Fetcher([site.host]).fetch(f"{site.url}/first?q=ü")
    assert page.url == f"{site.url}/second" and [one.path for one in site.asked] == ["/first", "/second"]
    assert site.asked[0].query == {"q": "ü"} and site.asked[0].headers["host"] == site.host
    for one in site.asked:
        assert not {"cookie", "authorization", "referer", "proxy-authorization"} & set(one.headers)
