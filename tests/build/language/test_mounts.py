"""`RUN --mount`: all of its options, what is taken where nothing is said, and what does not go together."""

import re

import pytest

from layerstore.build.language.flags import FlagError
from layerstore.build.language.instructions import RunMount
from layerstore.build.language.mounts import mount_of


def read(text):
    return mount_of(text, lambda word: word)


def test_what_is_taken_where_nothing_is_said():
    assert read("target=/t") == RunMount("bind", "/t", text="target=/t")
    cache = read("type=cache,target=/root/.cache/")
    assert (cache.id, cache.readonly, cache.sharing) == ("/root/.cache", False, "shared")
    assert (read("type=tmpfs,dst=/t").readonly, read("type=tmpfs,dst=/t,size=64m").size) == (False, 64 << 20)
    secret = read("type=secret,id=dir/key")
    assert (secret.id, secret.target, secret.readonly, secret.required) == ("dir/key", "/run/secrets/key", True, False)
    assert read("type=secret,target=/a/b").id == "b"
    assert read("type=secret,id=k,env=K").target == ""
    assert (read("type=secret,id=k,env=K,target=/k").env, read("type=secret,id=k,env=K,target=/k").target) == (
        "K",
        "/k",
    )
    assert read("type=ssh").id == "default"


def test_all_names_of_the_options():
    for text in ("source=/s,target=/t,rw", "src=/s,dst=/t,readwrite", "SRC=/s,destination=/t,ro=false,type=BIND"):
        mount = read(text)
        assert (mount.type, mount.source, mount.target, mount.readonly) == ("bind", "/s", "/t", False)
    mount = read("type=cache,target=/t,id=x,sharing=LOCKED,from=s,source=/q,uid=1,gid=2,mode=0750,ro")
    assert (mount.id, mount.sharing, mount.from_, mount.source) == ("x", "locked", "s", "/q")
    assert (mount.uid, mount.gid, mount.mode, mount.readonly) == (1, 2, 0o750, True)
    assert read("type=secret,id=x,required").required
    assert not read("type=ssh,required=false").required
    assert read('type=bind,"target=/a,b"').target == "/a,b"


REFUSED = {
    "type=volume,target=/t": "unsupported mount type",
    "target": "invalid field 'target' must be a key=value pair",
    "target=/t,what=1": "unexpected key 'what'",
    "type=bind,target=/t,uid=1": 'uid not allowed for "bind" type mounts',
    "type=tmpfs,target=/t,mode=1": 'mode not allowed for "tmpfs" type mounts',
    "type=bind,target=/t,size=1": "unexpected key 'size' for mount type 'bind'",
    "type=bind,target=/t,required": "unexpected key 'required' for mount type 'bind'",
    "type=bind,target=/t,sharing=shared": "invalid cache sharing set for bind mount",
    "type=cache,target=/t,sharing=mine": "unsupported sharing value",
    "type=cache,target=/t,mode=999": "invalid value 999 for mode",
    "type=cache,target=/t,uid=-1": "invalid value -1 for uid",
    "type=cache,target=/t,uid=4294967296": "invalid value 4294967296 for uid",
    "type=tmpfs,target=/t,size=x": "invalid value for size: x",
    "type=secret": "one of source, target required",
    "type=secret,id=a,source=b": "both source and id can't be set",
    "type=secret,id=a,from=b": "secret mount should not have a from",
    "target=/t,ro=perhaps": "invalid value for ro: perhaps",
    '"target=/t': "failed to parse csv mounts",
    "type=bind,from=a$b,target=/t": "'from' doesn't support variable expansion",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_go_together_is_refused(text):
    with pytest.raises(FlagError, match=re.escape(REFUSED[text])):
        read(text)


def test_one_with_variables_waits_for_them():
    mount = mount_of("type=$t,from=stage,size=$s")
    assert (mount.from_, mount.type) == ("stage", "$t")
    with pytest.raises(FlagError, match="unexpected key 'siz'"):
        mount_of("type=$t,siz=$s")
