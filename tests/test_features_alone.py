"""A feature says the same alone as in company: no slot of one is read as another's."""

import numpy as np
import pytest

from recoup.events import encode
from recoup.features import FeatureSet, FeatureStore, standard_features
from recoup.features.standard import benchmark_40
from recoup.testing import random_batch

BATCH = random_batch(1500, seed=11, visitors=60)


def rows_of(features: FeatureSet) -> dict[str, np.ndarray]:
    store = FeatureStore(features)
    values = store.step(encode(BATCH, store.columns)).values
    return dict(zip(store.names, values.T, strict=True))


@pytest.mark.parametrize("together", [standard_features(), benchmark_40()], ids=lambda s: s.name)
def test_each_feature_alone_equals_itself_in_the_set(together: FeatureSet) -> None:
    whole = rows_of(together)
    for feature in together.features:
        alone = rows_of(FeatureSet("alone", 1, (feature,)))
        np.testing.assert_array_equal(alone[feature.name], whole[feature.name], feature.name)
