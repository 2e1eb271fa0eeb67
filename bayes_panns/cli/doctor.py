"""The command that looks at the installation, the machine and a posterior."""

from pathlib import Path

import click

from bayes_panns.cli import options
from bayes_panns.cli.main import main


@main.command()
@click.argument("posterior", required=False, type=options.FOLDER)
@click.option("--json", "output", type=options.FOLDER, help="Write what was found to this file; - is standard output.")
@options.device
@options.guide_function
@click.pass_context
def doctor(
    ctx: click.Context, posterior: Path | None, output: Path | None, device: str, guide_function: str | None
) -> None:
    """Check the installation, the device, the decoders, the disk, and the health of a posterior.

    Each line is ok, a note or a problem; what to do about it follows. The exit code is 1 if there is a problem.

    \b
    Example:
      bayes-panns doctor
      bayes-panns doctor runs/mine
      bayes-panns doctor runs/mine --json -
    """
    from dataclasses import asdict

    from bayes_panns.core.findings import problems
    from bayes_panns.core.installation import examine_installation
    from bayes_panns.core.strict_json import dumps
    from bayes_panns.core.text import STDIN
    from bayes_panns.report.text import findings_text

    printed = str(output) == STDIN
    if output is not None and not printed:
        options.require_output(output)
    findings = list(examine_installation())
    # With a package missing, the rest cannot even be imported.
    if not problems(findings):
        from bayes_panns.jobs import examine_machine, examine_posterior

        findings += examine_machine()
        if posterior is not None:
            findings += examine_posterior(posterior, device=device, guide_function=guide_function)
    if not printed:
        options.write(findings_text(findings), None)
    if output is not None:
        table = {"problems": problems(findings), "findings": [asdict(each) for each in findings]}
        options.write(dumps(table, indent=1), None if printed else output)
    if problems(findings):
        ctx.exit(1)
