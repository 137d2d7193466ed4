"""A plugin that stops at the first test that fails, as `-x` does.

With `-x`, modules that cannot be imported may end with the status of failed tests.
"""


class FirstFailure:
    """Stops a session."""

    def __init__(self, session):
        self.session = session

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.session.shouldfail = "stopped at the first failure"


def pytest_sessionstart(session):
    session.config.pluginmanager.register(FirstFailure(session))
