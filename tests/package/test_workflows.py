"""The workflows: which jobs may publish, and from where they install."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# A job's lines are indented by four spaces, and those of a long command by more.
JOB = re.compile(r"^  (\w+):.*\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
JOBS = {
    (file.stem, name): steps
    for file in FILES
    for name, steps in JOB.findall(file.read_text().partition("\njobs:\n")[2])
}


def test_a_job_that_may_publish_runs_only_pinned_actions():
    may_publish = {job for job, steps in JOBS.items() if ": write" in steps}
    assert may_publish == {("release", "publish"), ("site", "publish")}
    for job in may_publish:
        assert "run:" not in JOBS[job]
        assert "checkout" not in JOBS[job]
        for action in re.findall(r"uses: (.*)", JOBS[job]):
            assert re.search(r"@[0-9a-f]{40} ", action), action
    for file in FILES:  # What all jobs of a workflow may do is above its jobs.
        assert ": write" not in file.read_text().partition("\njobs:\n")[0]


def test_a_command_installs_from_one_index():
    assert any("--index-url" in steps for steps in JOBS.values())
    for job, steps in JOBS.items():
        assert "--extra-index-url" not in steps, job


def test_the_tools_that_make_a_release_are_pinned():
    constraints = (ROOT / ".ci" / "constraints.txt").read_text()
    lines = [line for line in constraints.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    project = (ROOT / "pyproject.toml").read_text()
    [backend] = re.findall(r"^requires = \[\"([\w-]+)", project, re.MULTILINE)
    assert {"build", "twine", backend} <= pinned
    for (workflow, _), steps in JOBS.items():
        for command in re.findall(r"pip install (.*)", steps):
            if workflow == "release" and not command.startswith("dist/"):
                assert command.startswith("--constraint .ci/constraints.txt ")
