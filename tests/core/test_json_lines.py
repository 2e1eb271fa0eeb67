from bayes_panns.core.json_lines import append_lines, line_of, read_line


def test_lines_come_back_and_damage_is_seen(tmp_path):
    path = tmp_path / "a.jsonl"
    append_lines(path, [{"epoch": 1}, {"name": "caf\u00e9\udcff"}])
    append_lines(path, [{"epoch": 2}])
    lines = path.read_bytes().splitlines(keepends=True)
    assert [read_line(line) for line in lines] == [{"epoch": 1}, {"name": "caf\u00e9\udcff"}, {"epoch": 2}]
    assert read_line(lines[0][:-3]) is None
    assert read_line(lines[0].replace(b"1", b"2", 1)) is None
    assert read_line("[" * 100000) is None


def test_a_line_without_its_digest_is_refused_unless_that_is_allowed():
    for line in ('{"epoch": 1}', line_of({"epoch": 1}).replace('"digest"', '"digesT"')):
        assert read_line(line) is None
    assert read_line('{"epoch": 1}', without_digest=True) == {"epoch": 1}
