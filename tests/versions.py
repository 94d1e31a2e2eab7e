"""The MLflow that the tests run on: what differs between its versions is said by one of these."""

import pytest

from genesis_flow.compat.version import RELEASE

SINCE_3_18 = RELEASE >= (3, 18)

before_3_18 = pytest.mark.skipif(SINCE_3_18, reason="until MLflow 3.17")
since_3_18 = pytest.mark.skipif(not SINCE_3_18, reason="since MLflow 3.18")
