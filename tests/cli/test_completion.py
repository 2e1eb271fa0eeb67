"""What the shells offer on TAB, through click's protocol and in a real bash."""

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click.testing import CliRunner

from bayes_panns.cli import offered
from bayes_panns.cli.main import SECTIONS, main
from bayes_panns.core.choices import ExportFormat, TagFormat
from bayes_panns.recipes import names


def offered_for(*words, shell=BashComplete):
    """The values that a shell is given for a command line of which the last word is not complete."""
    *before, incomplete = words
    found = shell(main, {}, "bayes-panns", "_BAYES_PANNS_COMPLETE").get_completions(list(before), incomplete)
    return {item.value: item for item in found if item.type == "plain"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["in"], ["inspect"]),
        (["predict", "--form"], ["--format"]),
        (["predict", "p", "a.wav", "--format", ""], TagFormat.words()),
        (["predict", "p", "a.wav", "--channel", ""], ["mix", "left", "right"]),
        (["predict", "p", "a.wav", "--device", "c"], ["cpu", "cuda"]),
        (["predict", "p", "a.wav", "--draws", "m"], ["moments"]),
        (["pack", "esc"], ["esc50"]),
        (["pack", "audioset", "x", "--split", ""], ["balanced", "unbalanced", "eval"]),
        (["pretrain", "dem"], ["demo-downstream", "demo-upstream"]),
        (["finetune", "rotated-head", "--guide", "rot"], ["rotated-head"]),
        (["crossval", "esc10", "--guide", "flip", "--guide", "det-"], ["det-flip"]),
        (["widths", "p", "--guide", "map"], ["map", "map-head"]),
        (["import", "panns", "x.pth", "--net", "resnet14"], ["resnet14-narrow", "resnet14-coarse"]),
        (["export", "p", "--format", ""], ExportFormat.words()),
        (["fetch", "efficientat-mn04"], ["efficientat-mn04"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_the_words_of_a_command_are_offered(line, expected):
    assert list(offered_for(*line)) == list(expected)


def test_what_is_offered_is_what_there_is():
    from bayes_panns.clips import CATALOGS
    from bayes_panns.clips.catalogs.audioset import SPLITS
    from bayes_panns.interop import PUBLISHED
    from bayes_panns.nets import NETS

    assert set(offered.CATALOGS) == {*CATALOGS, "embeddings"}
    assert set(offered.SPLITS) == set(SPLITS)
    assert set(offered.NETWORKS) == set(NETS)
    assert set(offered.PUBLISHED) == set(PUBLISHED)
    assert set(offered_for("pretrain", "")) == set(names("runs"))
    for words in (offered.CATALOGS, offered.NETWORKS, offered.PUBLISHED):
        assert len(set(words)) == len(words)


def test_a_recipe_says_what_it_is_and_may_be_a_file():
    shell = FishComplete(main, {}, "bayes-panns", "_BAYES_PANNS_COMPLETE")
    found = shell.get_completions(["finetune"], "rotated-he")
    assert [item.type for item in found] == ["file", "plain"]
    assert len(found[1].help) > 20
    assert "rotated-head\t" in shell.format_completion(found[1]).replace(",", "\t")


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_the_script_is_clicks_own_and_asks_the_command(shell):
    result = CliRunner().invoke(main, ["completion", shell.name])
    assert result.exit_code == 0, result.output
    assert f"_BAYES_PANNS_COMPLETE={shell.name}_complete" in result.output
    assert "bayes-panns" in result.output
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


@pytest.fixture
def program(tmp_path):
    """An installed ``bayes-panns`` that says on standard error what it has imported."""
    path = tmp_path / "bayes-panns"
    path.write_text(
        f"#!{sys.executable}\nimport atexit, sys\nfrom bayes_panns.cli import main\n"
        "atexit.register(lambda: print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)), file=sys.stderr))\n"
        "main()\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes_without_torch(program):
    script = """
        eval "$(bayes-panns completion bash)"
        for line in "bayes-panns fetch panns-cnn1" "bayes-panns finetune rotated-h" "bayes-panns pack esc"; do
            COMP_WORDS=($line); COMP_CWORD=2; COMPREPLY=()
            _bayes_panns_completion bayes-panns
            echo "${COMPREPLY[@]}"
        done
    """
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    # Outside of a completion, compopt complains of what it is.
    result = subprocess.run(
        ["bash", "-c", script.replace("for line", "compopt() { :; }; for line")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.stdout.splitlines() == [
        "panns-cnn10 panns-cnn14 panns-cnn14-16k panns-cnn14-decision-level-max",
        "rotated-head",
        "esc50",
    ], result.stderr
    assert result.stderr.splitlines() == ["[]"] * 4


def test_the_sections_of_the_help_hold_each_command_once_and_bear_one_that_is_missing(monkeypatch):
    monkeypatch.setitem(SECTIONS, "Start here", (*SECTIONS["Start here"], "not-there"))
    text = CliRunner().invoke(main, ["--help"]).output
    assert "not-there" not in text
    for line in ("learn clips/ -o model", "predict model disk/ -o results/", "view results/"):
        assert f"bayes-panns {line}" in text
