"""A site, with the fakes behind it within reach."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from taskcred.testing import InMemoryVault, RecordingRevocations
from tests.support.site import Site, make_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture
def vault(site: Site) -> InMemoryVault:
    return site.vault


@pytest.fixture
def revocations(site: Site) -> RecordingRevocations:
    return cast("RecordingRevocations", site.ctx.revocations)
