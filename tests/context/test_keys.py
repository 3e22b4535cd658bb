from hypothesis import given
from hypothesis import strategies as st

from plato.context.keys import Keys

KEYS = Keys()
names = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(":{}%*/"), max_size=8)


@given(names, names, names, names)
def test_two_runs_never_share_a_key(tenant, run, other_tenant, other_run):
    if (tenant, run) != (other_tenant, other_run):
        assert KEYS.run(tenant, run) != KEYS.run(other_tenant, other_run)
        assert KEYS.nodes(tenant, run) != KEYS.nodes(other_tenant, other_run)


@given(names, names)
def test_the_third_part_of_a_key_is_its_only_hash_tag(tenant, run):
    prefix, escaped_tenant, tag, kind = KEYS.run(tenant, run).split(":")
    assert (prefix, kind) == ("plato", "state")
    assert not set("{}*?[") & set(escaped_tenant)
    assert (tag[0], tag[-1]) == ("{", "}")
    assert not set("{}") & set(tag[1:-1])
    assert KEYS.nodes(tenant, run).split(":")[2] == tag


@given(names, names, names, names)
def test_two_namespaces_never_share_a_key(namespace, other, tenant, run):
    if namespace != other:
        mine, theirs = Keys(namespace, "model"), Keys(other, "model")
        assert mine.run(tenant, run) != theirs.run(tenant, run)
        assert mine.running != theirs.running
        assert mine.kv_events != theirs.kv_events
    keys = Keys(namespace, "state")
    assert not {keys.running, keys.kv_events} & {keys.run(tenant, run), keys.nodes(tenant, run)}
