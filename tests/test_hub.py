"""Ranges of a hub's files come exactly as asked or not at all, whatever the server does; and the token stays with the hub."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hub_server import KINDS, Faults, serve

from copgen.download import hub as hubs
from copgen.download.hub import Web, open_hub, retry_after
from copgen.download.remote import Changed, Folder, Unanswered
from copgen.download.traffic import Patience, Stopped

QUICK = Patience(tries=5, first=0.005, longest=0.02, obeyed=0.05, silence=10)
NAME = "Core-DEM/images/part_00001.parquet"
DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "hub" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return tmp_path / "hub"


@pytest.mark.parametrize("redirects", [False, True], ids=["directly", "sent on"])
def test_ranges_are_the_files_bytes(folder, redirects):
    with serve(folder, redirects=redirects) as server:
        web = Web(server.url, patience=QUICK)
        file, end = web.tail(NAME, 1000, "footers")
        assert (file.size, end) == (len(DATA), DATA[-1000:])
        for start, stop in ((0, 1), (5, 70_000), (len(DATA) - 3, len(DATA))):
            assert web.read(file, start, stop, "columns") == DATA[start:stop]
        assert web.tail(NAME, 10**6, "footers")[1] == DATA
        assert web.look(NAME, file.etag) is None and web.look(NAME) == file
        assert web.traffic.wasted == 0


@pytest.mark.parametrize("redirects", [False, True], ids=["directly", "sent on"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flipped"])
def test_every_fault_is_seen_and_outlived(folder, kind, redirects):
    with serve(folder, Faults(script={1: kind, 2: kind, 4: kind}), redirects=redirects) as server:
        web = Web(server.url, patience=QUICK)
        file, end = web.tail(NAME, 1000, "footers")
        assert end == DATA[-1000:] and web.read(file, 10, 200_000, "columns") == DATA[10:200_000]
        harmless = {"slow": 2, "long": 1, "403": redirects}.get(kind, 0)      # no byte is after the last; an expired address is renewed
        assert server.injected[kind] >= 2
        assert web.traffic.retries.total() == server.injected[kind] - harmless
        assert web.traffic.received.total() - web.traffic.wasted == 1000 + 199_990


@pytest.mark.parametrize("kind", ["truncated", "reset_midway"])
def test_what_came_before_a_break_is_not_fetched_again(folder, kind):
    with serve(folder, Faults(script={2: kind, 3: kind})) as server:
        web = Web(server.url, patience=QUICK)
        file, _ = web.tail(NAME, 8, "footers")
        assert web.read(file, 0, 200_000, "columns") == DATA[:200_000]
        asked = [one.range for one in server.log if one.fault or one.status == 206][1:]
        if kind == "truncated":                  # of a reset, what was under way may be lost
            assert asked == ["bytes=0-199999", "bytes=100000-199999", "bytes=150000-199999"]
            assert web.traffic.wasted == 0


def test_who_never_answers_is_named_with_what_he_did(folder):
    with serve(folder, Faults(rates={"503": 1}, again=100)) as server:
        web = Web(server.url, patience=QUICK)
        with pytest.raises(Unanswered, match=rf"{server.url}.*part_00001.*answered 503, 5 times; run the same command again"):
            web.tail(NAME, 8, "footers")
        assert server.requests == web.traffic.requests == 5


def test_nobody_listens():
    with pytest.raises(Unanswered, match="no answer came"):
        Web("http://127.0.0.1:9", patience=QUICK).tail(NAME, 8, "footers")


def test_what_is_not_there_is_asked_for_once(folder):
    with serve(folder) as server, pytest.raises(ValueError, match=r"Core-DEM/resolve/main/nothing\.parquet: is not there"):
        Web(server.url, patience=QUICK).tail("Core-DEM/nothing.parquet", 8, "footers")
    assert server.requests == 1


@pytest.mark.parametrize("redirects", [False, True], ids=["directly", "sent on"])
def test_another_file_is_noticed_at_its_first_range(folder, redirects):
    other = folder / "other.parquet"
    other.write_bytes(DATA[::-1])
    with serve(folder, Faults(changes={"part_00001.parquet": (2, other)}), redirects=redirects) as server:
        web = Web(server.url, patience=QUICK)
        file, _ = web.tail(NAME, 8, "footers")
        if redirects:                            # where both servers count a request
            time.sleep(0)
        with pytest.raises(Changed, match="was changed on the server"):
            for _ in range(3):
                web.read(file, 0, 10, "columns")


def test_a_pause_that_the_server_asks_for_is_everybodys(folder):
    patience = Patience(tries=5, first=0.001, obeyed=0.4)
    with serve(folder, Faults(script={1: "429"}, retry_after="30")) as server:       # 30 s are asked for, 0.4 obeyed
        web = Web(server.url, patience=patience, connections=3)
        began = time.monotonic()
        threads = [threading.Thread(target=web.tail, args=(NAME, 8, "footers")) for _ in range(3)]
        threads[0].start()
        while not server.requests:
            time.sleep(0.002)
        time.sleep(0.05)
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.1)
        assert server.requests == 1              # the others wait with the first
        for thread in threads:
            thread.join()
        assert 0.4 <= time.monotonic() - began < 5 and server.requests == 4


def test_retry_after_is_seconds_or_a_date():
    class Answer:
        def __init__(self, said):
            self.headers = {"Retry-After": said}

    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    assert retry_after(Answer("7")) == 7 and 17 < retry_after(Answer(soon)) <= 20
    assert retry_after(Answer("Thu, 01 Jan 1970 00:00:00 GMT")) == 0
    assert [retry_after(Answer(said)) for said in ("", "soon", "-3", "9" * 40)] == [None] * 4


def test_no_more_connections_than_asked_for(folder):
    with serve(folder, Faults(rates={"slow": 1}, again=10**6, pause=0.02)) as server:
        web, most, now, lock = Web(server.url, patience=QUICK, connections=2), 0, 0, threading.Lock()
        send = web._send

        def counted(*args):
            nonlocal most, now
            with lock:
                now += 1
                most = max(most, now)
            try:
                return send(*args)
            finally:
                with lock:
                    now -= 1

        web._send = counted
        threads = [threading.Thread(target=web.tail, args=(NAME, 100, "footers")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most <= 2 and server.requests == 8


def test_the_token_goes_to_the_hub_and_to_nobody_else(folder, monkeypatch):
    from huggingface_hub import constants

    with serve(folder, token="hf_secret", redirects=True) as server:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        hub = open_hub(None, patience=QUICK)
        file, _ = hub.tail(NAME, 8, "footers")
        assert hub.read(file, 0, 9, "columns") == DATA[:9]
        content = [one for one in server.log if one.at_content]
        assert content and not [one for one in content if "Authorization" in one.headers]
        assert all(one.headers["Authorization"] == "Bearer hf_secret" for one in server.log if not one.at_content)

        monkeypatch.setattr(constants, "ENDPOINT", "https://elsewhere.invalid")
        server.clear()
        with pytest.raises(ValueError, match="wants a token"):
            open_hub(server.url, patience=QUICK).tail(NAME, 8, "footers")         # a mirror has no right to it
        assert [one.status for one in server.log] == [401] and "Authorization" not in server.log[0].headers


def test_passwords_of_netrc_stay_at_home(folder, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve(folder) as server:
        Web(server.url, patience=QUICK).tail(NAME, 8, "footers")
        assert "Authorization" not in server.log[0].headers


def test_a_signed_address_is_kept_and_asked_for_again_when_it_expired(folder):
    with serve(folder, Faults(script={3: "403"}), redirects=True) as server:
        web = Web(server.url, patience=QUICK)
        file, _ = web.tail(NAME, 8, "footers")
        for start in range(3):
            assert web.read(file, start, start + 9, "columns") == DATA[start:start + 9]
        # the tail: hub, content; three ranges: content, of which the second is refused: hub, content; content
        assert [one.at_content for one in server.log] == [False, True, True, True, False, True, True]
        assert not web.traffic.retries


def sent_on_to(url, where, monkeypatch):
    """A hub whose every answer is a redirection."""
    web = Web(url, patience=QUICK)
    send = web._send

    def sent_on(address, headers):
        answer = send(address, headers)
        answer.status_code, answer.headers["Location"] = 302, where
        return answer

    monkeypatch.setattr(web, "_send", sent_on)
    return web


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"])
def test_only_http_is_followed(folder, monkeypatch, where):
    with serve(folder) as server:
        web = sent_on_to(server.url, where, monkeypatch)
        with pytest.raises(ValueError, match="which is not read from"):
            web.tail(NAME, 8, "footers")
    with pytest.raises(ValueError, match="is no address that data is read from"):
        open_hub(where)


@pytest.mark.parametrize("where", ["http://[::1", "http://127.0.0.1:99999/x", "http://127.0.0.1:port/x"])
def test_an_address_that_is_none_is_named(folder, monkeypatch, where):
    with serve(folder) as server:
        web = sent_on_to(server.url, where, monkeypatch)
        with pytest.raises(ValueError, match=r"part_00001\.parquet: sends on to 'http://.*which is no address"):
            web.tail(NAME, 8, "footers")
    with pytest.raises(ValueError, match="is no address"):
        open_hub(where)


def test_the_body_of_a_redirection_is_not_read():
    sent = 0

    class Endless(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            nonlocal sent
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            with suppress(OSError):
                while sent < 2**26:
                    sent += self.wfile.write(bytes(2**20))

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.raises(Unanswered, match="again and again"):
            Web(f"http://127.0.0.1:{server.server_address[1]}", patience=Patience(tries=1)).tail(NAME, 8, "footers")
        server.shutdown()
    assert sent < 2**26


def test_a_trickle_is_cut_off_and_a_wish_to_stop_is_heard_within_it(folder):
    class Trickle(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.send_response(206)
            for name, value in (("Content-Range", "bytes 0-65535/65536"), ("Content-Length", "65536"), ("ETag", '"x"')):
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.02)

    with ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url, began = f"http://127.0.0.1:{server.server_address[1]}", time.monotonic()
        with pytest.raises(Unanswered, match=r"of 65536 bytes in 0 seconds"):
            Web(url, patience=Patience(tries=1, silence=0.3)).tail(NAME, 2**16, "footers")
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Stopped):
            Web(url, patience=Patience(tries=1), stop=stop).tail(NAME, 2**16, "footers")
        assert time.monotonic() - began < 3
        server.shutdown()


def test_a_hash_is_told_anywhere_on_the_way(folder, monkeypatch):
    """A hub may send on within itself before it names the hash; the content network's ETag is none of the file's bytes."""
    with serve(folder, redirects=True) as server:
        web = Web(server.url, patience=QUICK)
        expected = web.look(NAME)
        web, turned = Web(server.url, patience=QUICK), []
        send = web._send

        def turning(address, headers):
            answer = send(address, headers)
            if not turned:
                turned.append(address)
                answer.headers["Location"] = address
                del answer.headers["X-Linked-ETag"]
            elif answer.status_code == 206:
                answer.headers["ETag"] = '"' + "0" * 64 + '"'
            return answer

        monkeypatch.setattr(web, "_send", turning)
        assert web.look(NAME) == expected


def test_round_trips_end(folder, monkeypatch):
    with serve(folder) as server:
        web = Web(server.url, patience=QUICK)
        send = web._send

        def round_and_round(address, headers):
            answer = send(address, headers)
            answer.status_code, answer.headers["Location"] = 302, address
            return answer

        monkeypatch.setattr(web, "_send", round_and_round)
        with pytest.raises(Unanswered, match="again and again"):
            web.tail(NAME, 8, "footers")


def test_who_is_asked_to_stop_stops(folder):
    stop = threading.Event()
    with serve(folder, Faults(rates={"503": 1}, again=100, retry_after="100")) as server:
        web, ended = Web(server.url, patience=Patience(), stop=stop), []

        def ask():
            try:
                web.tail(NAME, 8, "footers")
            except Stopped:
                ended.append(True)

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.requests:
            time.sleep(0.002)
        stop.set()                               # while it waits for 100 seconds
        thread.join(5)
        assert ended == [True]


def test_a_folder_is_read_as_a_hub_is(folder):
    mirror = open_hub(str(folder))
    assert isinstance(mirror, Folder)
    file, end = mirror.tail(NAME, 100, "footers")
    assert end == DATA[-100:] and mirror.read(file, 3, 70, "columns") == DATA[3:70]
    assert mirror.look(NAME, file.etag) is None
    (folder / NAME).write_bytes(DATA[:500])
    with pytest.raises(Changed):
        mirror.read(file, 3, 70, "columns")
    with pytest.raises(ValueError, match="is not there"):
        mirror.look("Core-DEM/metadata.parquet")
    with pytest.raises(ValueError, match="is no folder"):
        open_hub(str(folder / "nowhere"))


def test_offline_is_said(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        open_hub(None)


@pytest.mark.parametrize("revision", ["../x", "", "a b", "x/../y", "-x", "a?b"])
def test_a_revision_is_a_name(revision):
    with pytest.raises(ValueError, match="is no name of a branch"):
        Web("http://127.0.0.1:1", revision=revision)


def test_waits_grow_and_end():
    patience = Patience(first=1, longest=10, obeyed=5)
    assert all(2 ** (k - 1) / 2 <= patience.wait(k, None) <= 2 ** (k - 1) for k in range(1, 4))
    assert patience.wait(50, None) <= 10 and 5 <= patience.wait(1, 1000) <= 6


def test_no_host_is_written_down():
    source = "".join(path.read_text() for path in Path(hubs.__file__).parent.glob("*.py"))
    assert "hugging" + "face.co" not in source


@pytest.mark.parametrize("status", [200, 400, 416, 501])
def test_servers_that_know_no_ranges_from_the_end(folder, status):
    with serve(folder) as server:
        web = Web(server.url, patience=QUICK)
        send = web._send

        def without(address, headers):
            if not headers["Range"].startswith("bytes=-"):
                return send(address, headers)
            answer = send(address, {})
            answer.status_code = status
            return answer

        web._send = without
        file, end = web.tail(NAME, 1000, "footers")
        assert end == DATA[-1000:] and file.size == len(DATA)
        server.clear()
        assert web.tail(NAME, 1000, "footers")[1] == end and server.requests == 2


def test_servers_that_know_no_ranges_at_all(folder):
    with serve(folder) as server:
        web = Web(server.url, patience=QUICK)
        send = web._send
        web._send = lambda address, headers: send(address, {})
        with pytest.raises(Unanswered, match=r"answered 200 and not with the range.*\(a mirror must know ranges\)"):
            web.tail(NAME, 1000, "footers")
