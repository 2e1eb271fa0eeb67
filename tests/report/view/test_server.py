import json
import shutil
import socket
from urllib.parse import urlsplit

import pytest

from bayes_panns.core.errors import OutputError, ResultsError
from bayes_panns.jobs.results import ResultsFolder
from bayes_panns.report.view import ViewServer
from tests.harness.waiting import PATIENCE
from tests.report.view.conftest import serving
from tests.report.view.made import LABELS, WINDOW, add, begin, events, windows


def test_it_listens_to_this_computer_alone(reader):
    assert reader.server.server_address[0] == "127.0.0.1"


def test_the_page_and_what_it_needs_are_there_and_nothing_may_be_asked_for_elsewhere(reader):
    status, headers, content = reader.ask("")
    assert (status, headers.get_content_type()) == (200, "text/html")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert b"http" not in content
    for name in ("view.css", "app.js", "stage.js"):
        assert reader.ask(name)[0] == 200


@pytest.mark.parametrize("path", ["", "recordings", "labels.csv", "app.js"])
def test_another_token_is_refused(reader, path):
    base = reader.server.address.removesuffix(f"{reader.server.token}/")
    for token in ("", "x/", f"{reader.server.token}x/", f"{reader.server.token[:-1]}/", "%C3%A9/"):
        status, _, content = reader.ask(path, address=base + token)
        assert status == 403
        assert "address" in json.loads(content)["error"]


def test_another_host_is_refused(reader):
    for host, status in (("evil.example", 403), (f"evil.example:{reader.server.server_port}", 403), ("127.0.0.1", 403)):
        assert reader.ask("recordings", headers={"Host": host})[0] == status
    assert reader.ask("recordings", headers={"Host": f"localhost:{reader.server.server_port}"})[0] == 200
    headers = {"Host": "evil.example", "Content-Type": "application/json"}
    assert reader.ask("recordings/x/labels", "PUT", headers, b"{}")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "../results.json",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "results.json",
        "view.html",
        "__init__.py",
        "recordings/../results.json",
        "recordings/disk/one.wav",
        "recordings/{key}/../../results.json",
        "recordings/{key}/sound/../../../results.json",
        "recordings/{key}/sound/9.wav",
        "recordings/{key}/windows/0/-1",
        "recordings/{key}/windows/0/0?labels=6",
        "recordings/{key}/windows/99/0",
        "recordings/{key}/spectrogram/0/99",
        "labels.csv",
    ],
)
def test_only_recordings_of_the_folder_are_there_and_only_by_their_keys(reader, path):
    # A reader that tidies paths up would ask for something else.
    parts = urlsplit(reader.server.address)
    path = path.format(key=reader.keys["disk/one.wav"])
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as connection:
        connection.sendall(
            f"GET {parts.path}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(b" ", 2)[1] == b"404", answer[:200]


def test_all_recordings_are_listed_and_one_is_told_of(reader):
    found = reader.get("recordings")
    assert [each["file"] for each in found["recordings"]] == ["disk/one.wav", "disk/deep/two.wav", "disk/broken.wav"]
    assert found["recordings"][2]["skipped"] == "disk/broken.wav: holds no samples"
    told = reader.get(f"recordings/{reader.keys['disk/one.wav']}")
    assert (told["windows"], told["seconds"], told["missing"]) == (24, 60, None)
    known = windows(24)
    assert told["outside"] == known.outside.sum()
    # Labels with events come first.
    order = [bool(each["events"]) for each in told["labels"]]
    assert order == sorted(order, reverse=True)
    # And of these, those that are heard longest.
    heard = events(known, "disk/one.wav")
    lasting = [sum(e.offset - e.onset for e in heard if e.label == LABELS[each["index"]]) for each in told["labels"]]
    assert lasting == sorted(lasting, reverse=True)
    assert {each["index"] for each in told["labels"]} == set(range(len(LABELS)))


def test_the_window_of_a_stretch_is_the_one_where_the_label_is_most_probable(reader):
    known = windows(24)
    key = reader.keys["disk/one.wav"]
    found = reader.get(f"recordings/{key}/window?start=10&end=40&label=1")
    best = 4 + known.probability[4:16, 1].argmax()
    assert found["start"] == pytest.approx(known.start[best])
    told = next(each for each in found["labels"] if each["index"] == 1)
    assert told["probability"] == pytest.approx(known.probability[best, 1], abs=1e-4)
    assert [each["probability"] for each in found["labels"]] == sorted(
        (each["probability"] for each in found["labels"]), reverse=True
    )
    moment = reader.get(f"recordings/{key}/window?start=33&end=33")
    assert (moment["start"], moment["end"]) == (32.5, 35.0)
    # The last window is longer than the sound.
    last = reader.get(f"recordings/{reader.keys['disk/deep/two.wav']}/window?start=40.5&end=40.5")
    assert (last["start"], last["end"]) == (40.0, 41)
    assert reader.get(f"recordings/{key}/window?start=99&end=99") is None


def test_events_are_sorted_filtered_and_paged(reader):
    everything = reader.get("events")
    assert everything["total"] == len(everything["events"]) == sum(everything["labels"].values()) >= 6
    orders = {
        "time": lambda event: 0,
        "uncertainty": lambda event: event["low"] - event["high"],
        "likely": lambda event: -event["probability"],
        "unlikely": lambda event: event["probability"],
    }
    for order, value in orders.items():
        values = [value(event) for event in reader.get(f"events?order={order}")["events"]]
        assert values == sorted(values)
    one = reader.get(f"events?recording={reader.keys['disk/one.wav']}")
    assert {event["recording"] for event in one["events"]} == {reader.keys["disk/one.wav"]}
    label = one["events"][0]["label"]
    of_label = reader.get(f"events?label={label}&least=0.6")
    assert all(event["label"] == label and event["probability"] >= 0.6 for event in of_label["events"])
    rest = reader.get("events?offset=2&limit=3")
    assert rest["events"] == everything["events"][2:5]
    assert reader.ask("events?order=size")[0] == 400
    assert reader.ask("events?label=x")[0] == 400


def test_labels_are_on_disk_at_once_and_events_know_of_them(client, made):
    key = client.keys["disk/deep/two.wav"]
    first, second = client.get(f"events?recording={key}&order=likely")["events"][:2]
    name = LABELS[first["label"]]
    status, answer = client.say(key, first["onset"], first["offset"], [name])
    assert status == 200
    assert answer["before"] is None
    assert [(said["label"], said["verdict"]) for said in answer["verdicts"]] == [(first["label"], True)]
    client.say(key, second["onset"], second["offset"], [], [LABELS[second["label"]]])
    text = (made.results / "labels.csv").read_text()
    assert f"disk/deep/two.wav,{name}" in text.replace('"', "")
    assert client.ask("labels.csv")[2].decode() == text
    assert "attachment" in client.ask("labels.csv")[1]["Content-Disposition"]
    assert [event["label"] for event in client.get("events?show=heard")["events"]] == [first["label"]]
    assert [event["label"] for event in client.get("events?show=refuted")["events"]] == [second["label"]]
    assert client.get("events?show=open")["total"] == client.get("events")["total"] - 2
    told = client.get("labels")
    assert told["stretches"] == 2
    assert told["command"].startswith(f"bayes-panns pack timed {made.results / 'labels.csv'} -o")
    assert "--allow-outside" not in told["command"]
    counts = {each["file"]: each["labelled"] for each in client.get("recordings")["recordings"]}
    assert counts["disk/deep/two.wav"] == 2
    _, answer = client.say(key, first["onset"], first["offset"], None)
    assert answer["before"]["labels"] == [name]
    assert answer["verdicts"][0]["verdict"] is None


def test_an_event_that_ends_after_the_sound_is_labelled_to_its_end(client):
    key = client.keys["disk/deep/two.wav"]
    last = max(client.get(f"events?recording={key}")["events"], key=lambda event: event["offset"])
    assert last["offset"] == 41
    _, answer = client.say(key, last["onset"], 42.5, [LABELS[last["label"]]])
    assert answer["marks"][0]["end"] == 41
    assert answer["verdicts"][0]["verdict"] is True


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"{}", 400),
        (b"[]", 404),
        (b"x", 400),
        (b'{"start": 2, "end": 1, "labels": []}', 400),
        (b'{"start": 0, "end": 1, "labels": "owl"}', 400),
        (b'{"start": 0, "end": 1, "labels": [3]}', 400),
        (b'{"start": 0, "end": 1, "labels": ["a;b"]}', 400),
        (b'{"start": 0, "end": 1, "labels": ["' + b"a" * 70_000 + b'"]}', 400),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(reader, said, status):
    key = reader.keys["disk/one.wav"]
    headers = {"Content-Type": "application/json"}
    assert reader.ask(f"recordings/{key}/labels", "PUT", headers, said)[0] == status
    assert reader.ask("labels.csv")[0] == 404


def test_a_form_of_another_page_cannot_write(reader):
    key, said = reader.keys["disk/one.wav"], b'{"start": 0, "end": 1, "labels": []}'
    assert reader.ask(f"recordings/{key}/labels", "PUT", {"Content-Type": "text/plain"}, said)[0] == 400
    assert reader.ask(f"recordings/{key}/labels", "POST", {"Content-Type": "application/json"}, said)[0] == 501


def test_a_damaged_labels_file_is_told_of_and_not_replaced(client, made):
    (made.results / "labels.csv").write_text("file,labels,start,end\ndisk/one.wav,owl,now,4\n")
    assert "line 2 has start 'now'" in client.get("recordings")["problem"]
    status, answer = client.say(client.keys["disk/one.wav"], 0, 1, ["owl"])
    assert status == 500
    assert "line 2 has start 'now'" in answer["error"]
    assert "now" in (made.results / "labels.csv").read_text()


def test_sound_comes_in_the_stretches_asked_for(reader):
    path = f"recordings/{reader.keys['disk/one.wav']}/sound/0.wav"
    status, headers, content = reader.ask(path)
    assert (status, headers["Accept-Ranges"], len(content)) == (200, "bytes", 44 + 60 * 64_000)
    status, headers, part = reader.ask(path, headers={"Range": "bytes=1000-1999"})
    assert (status, headers["Content-Range"]) == (206, f"bytes 1000-1999/{len(content)}")
    assert part == content[1000:2000]
    assert reader.ask(path, headers={"Range": "bytes=-10"})[2] == content[-10:]
    assert reader.ask(path, headers={"Range": f"bytes={len(content)}-"})[0] == 416
    assert reader.ask(path, "HEAD")[1]["Content-Length"] == str(len(content))
    status, headers, _ = reader.ask(f"recordings/{reader.keys['disk/one.wav']}/spectrogram/2/0")
    assert (status, headers.get_content_type()) == (200, "image/webp")


def test_a_recording_that_has_moved_is_said_and_found_again(made):
    shutil.move(made.home / "disk", made.home / "moved")
    with serving(made.results) as client:
        key = client.keys["disk/deep/two.wav"]
        assert "--recordings" in client.get(f"recordings/{key}")["missing"]
        status, _, content = client.ask(f"recordings/{key}/sound/0.wav")
        assert status == 404
        assert "not in" in json.loads(content)["error"]
        # All that needs no sound works.
        assert client.say(key, 0, WINDOW, ["Dog"])[0] == 200
    with serving(made.results, made.home / "moved") as client:
        assert client.get(f"recordings/{key}")["missing"] is None
        assert client.ask(f"recordings/{key}/sound/0.wav")[0] == 200
        # What was said before is of the same recording, which is called as it is now.
        client.say(key, WINDOW, 2 * WINDOW, ["Dog"])
        assert (made.results / "labels.csv").read_text().count("moved/deep/two.wav") == 2
    (made.home / "moved" / "deep" / "two.wav").write_bytes(b"another")
    with serving(made.results, made.home / "moved") as client:
        assert "its size differs" in client.get(f"recordings/{key}")["missing"]


def test_recordings_that_pack_finds_only_by_their_whole_path(tmp_path):
    results = tmp_path / "a" / "b" / "c" / "results"
    begin(results)
    add(results, str(tmp_path / "far.wav"), 10)
    with serving(results) as client:
        (key,) = client.keys.values()
        client.say(key, 0, 1, ["Dog"])
        assert client.get("labels")["command"].endswith("--allow-outside")
    assert str(tmp_path / "far.wav") in (results / "labels.csv").read_text()


def test_the_command_names_the_posterior_unless_a_label_is_new(tmp_path):
    results = tmp_path / "results"
    (tmp_path / "model").mkdir()
    results.mkdir()
    ResultsFolder(results).begin({"labels": LABELS, "posterior": {"folder": str(tmp_path / "model"), "digest": ""}})
    add(results, "a.wav", 10)
    with serving(results) as client:
        (key,) = client.keys.values()
        client.say(key, 0, 1, [LABELS[0]])
        assert client.get("labels")["command"].endswith(f"--labels {tmp_path / 'model'}")
        client.say(key, 1, 2, ["never heard of"])
        assert "--labels" not in client.get("labels")["command"]
        client.say(key, 1, 2, None)
        (tmp_path / "model").rmdir()
        assert "--labels" not in client.get("labels")["command"]


def test_recordings_that_are_finished_later_are_there(client, made):
    add(made.results, "disk/late.wav", 10)
    assert "disk/late.wav" in client.keys
    assert client.get(f"recordings/{client.keys['disk/late.wav']}")["windows"] == 4


def test_a_thousand_recordings_are_listed_at_once(tmp_path):
    results = tmp_path / "results"
    begin(results)
    add(results, "a0.wav", 10)
    folder = ResultsFolder(results)
    (first,) = folder.recordings()
    folder.write_recordings([type(first)(**{**vars(first), "file": f"a{number}.wav"}) for number in range(1000)])
    with serving(results) as reader:
        assert len(reader.get("recordings")["recordings"]) == 1000


def test_a_folder_without_results_and_a_port_that_is_taken(tmp_path, client, made):
    with pytest.raises(ResultsError, match="holds no results"):
        ViewServer(tmp_path / "nothing")
    with pytest.raises(OutputError, match="leave --port out"):
        ViewServer(made.results, port=client.server.server_port)
