"""What the harness reads out of Ansible's output."""

from e2e.playbooks import read_recap

QUIET = """
PLAY RECAP *********************************************************************
cloud                      : ok=43   changed=0    unreachable=0    failed=0    skipped=9
edge-1                     : ok=51   changed=0    unreachable=0    failed=0    skipped=12
"""


def test_a_run_without_changes_is_quiet() -> None:
    """Nothing changed, nothing failed, and somebody was reached."""
    ran = read_recap(QUIET)
    assert ran.is_quiet
    assert ran.hosts == 2


def test_a_change_a_failure_and_an_unreachable_host_are_not_quiet() -> None:
    """One of them on one host is enough."""
    for word in ("changed=0", "unreachable=0", "failed=0"):
        assert not read_recap(QUIET.replace(word, word[:-1] + "1", 1)).is_quiet


def test_no_recap_is_no_success() -> None:
    """A run that died before it reached anybody proves nothing."""
    assert not read_recap("ERROR! the playbook could not be found").is_quiet
