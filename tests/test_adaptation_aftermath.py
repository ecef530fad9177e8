"""Aftermath: what is heard right after something was done tells of before."""

from __future__ import annotations

from broadcaster.adaptation.aftermath import Aftermath, AftermathSettings

S = AftermathSettings()


def test_before_anything_was_done_everything_counts() -> None:
    aftermath = Aftermath(S)
    assert not aftermath.lasts(0.0)
    assert not aftermath.hides(0.0, 1.0)


def test_a_change_shows_after_its_queue_and_later_where_packets_were_lost() -> None:
    for loses, shows in ((False, S.change), (True, S.loss)):
        aftermath = Aftermath(S)
        aftermath.changed(10.0, 0.3, loses=loses)
        before, after = 10.3 + shows - 0.01, 10.3 + shows + 0.01
        assert aftermath.lasts(before)
        assert aftermath.hides(before, 0.1)
        assert not aftermath.lasts(after)
        assert not aftermath.hides(after, 1.0)


def test_behind_a_probe_a_path_that_became_much_narrower_shows_at_once_and_others_soon() -> None:
    for loses, shows in ((True, S.loss), (False, S.change)):
        aftermath = Aftermath(S)
        aftermath.probed(10.0, 0.1, 0.05, loses=loses)
        assert aftermath.lasts(10.1 + shows - 0.01)
        assert not aftermath.lasts(10.1 + shows + 0.01)
    assert not aftermath.hides(10.1, S.deep - 0.01)
    assert aftermath.hides(10.1, S.deep)
    assert not aftermath.hides(10.15 + S.probe + 0.01, S.deep)
    assert aftermath.changed_at < 0
