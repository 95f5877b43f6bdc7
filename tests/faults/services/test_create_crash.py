"""A service is registered in two stores: wherever a crash cuts that off, nothing half-made can be used, the
keeper clears it away, and the same command works again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.errors import ConflictError
from taskcred.services import registry
from taskcred.services.registry import NewService
from taskcred.store import audit
from taskcred.store import service_tables as st
from tests.support.site import Site, make_site

NEW = NewService("notebook", ("report",))
POINTS = 4  # the two commits, before and after the vault's record


class Crash(BaseException):
    """The process dies: no handler of ours runs."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def crash_at(site: Site, point: int) -> int:
    """Register a service and die at the `point`th step; the number of steps that were reached."""
    vault = site.vault
    reached = 0

    def step(*_: object) -> None:
        nonlocal reached
        reached += 1
        if reached == point:
            raise Crash

    inner = vault.store

    def store(*arguments: object) -> None:
        step()
        inner(*arguments)  # type: ignore[arg-type]  # passed through
        step()

    vault.store = store  # type: ignore[method-assign]  # for this one call
    sa.event.listen(site.ctx.store.engine, "commit", step)
    try:
        registry.create(site.ctx, audit.OPERATOR, NEW)
    except Crash:
        pass
    finally:
        sa.event.remove(site.ctx.store.engine, "commit", step)
        del vault.store  # type: ignore[method-assign]  # the class's own again
    return reached


def test_the_steps_are_those_below(site: Site) -> None:
    assert crash_at(site, point=0) == POINTS


@pytest.mark.parametrize("point", range(1, POINTS + 1))
def test_a_crash_leaves_nothing_half_made(site: Site, point: int) -> None:
    vault = site.vault
    assert crash_at(site, point) == point
    # Nobody can use what is left, and nobody sees it.
    assert registry.list_own(site.ctx, audit.OPERATOR) == []
    with site.ctx.store.read() as connection:
        assert connection.execute(st.service_secrets.select()).all() == []
    site.clock.advance(timedelta(minutes=2))
    registry.tidy(site.ctx)
    assert vault.paths("services/") == []
    with site.ctx.store.read() as connection:
        states = connection.execute(sa.select(st.services.c.state)).scalars().all()
    assert set(states) <= {"ended"}
    assert registry.create(site.ctx, audit.OPERATOR, NEW).service.name == NEW.name


def test_the_name_need_not_wait_for_the_keeper(site: Site) -> None:
    crash_at(site, point=2)
    with pytest.raises(ConflictError):  # it may still be under way
        registry.create(site.ctx, audit.OPERATOR, NEW)
    site.clock.advance(timedelta(minutes=2))
    made = registry.create(site.ctx, audit.OPERATOR, NEW).service
    registry.tidy(site.ctx)
    assert registry.list_own(site.ctx, audit.OPERATOR) == [made]
    assert site.vault.paths("services/") == [f"services/{made.id}/webhook"]


def test_what_the_keeper_gave_up_does_not_come_to_be(site: Site) -> None:
    """The vault takes its time; meanwhile the keeper clears the registration away."""
    vault = site.vault

    def slow(method: str) -> None:
        if method == "store":
            vault.hook = None
            site.clock.advance(timedelta(minutes=2))
            registry.tidy(site.ctx)

    vault.hook = slow
    with pytest.raises(ConflictError):
        registry.create(site.ctx, audit.OPERATOR, NEW)
    assert registry.list_own(site.ctx, audit.OPERATOR) == []
    registry.tidy(site.ctx)
    assert vault.paths("services/") == []
