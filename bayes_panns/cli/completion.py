"""The command that teaches a shell to complete the others."""

import click
from click.shell_completion import get_completion_class

from bayes_panns.cli.main import main

_PROGRAM, _VARIABLE = "bayes-panns", "_BAYES_PANNS_COMPLETE"


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, recipes and names on TAB.

    Write it to where the shell looks, and open a new shell. It asks the installed bayes-panns each time, so it need not
    be written again after an update.

    \b
    bash 4.4 or newer, with the package bash-completion:
      mkdir -p ~/.local/share/bash-completion/completions
      bayes-panns completion bash > ~/.local/share/bash-completion/completions/bayes-panns
    zsh, with these lines in ~/.zshrc: fpath=(~/.zfunc $fpath); autoload -Uz compinit && compinit
      mkdir -p ~/.zfunc
      bayes-panns completion zsh > ~/.zfunc/_bayes-panns
    fish:
      mkdir -p ~/.config/fish/completions
      bayes-panns completion fish > ~/.config/fish/completions/bayes-panns.fish

    \b
    Example:
      bayes-panns completion bash
    For the running shell alone:
      eval "$(bayes-panns completion bash)"
    """
    found = get_completion_class(shell)
    assert found is not None, "click has these three"
    click.echo(found(main, {}, _PROGRAM, _VARIABLE).source(), nl=False)
