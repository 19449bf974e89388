"""Public names of ``hitless.testing`` that were renamed are still importable under their old names."""

from __future__ import annotations

from hitless.testing import api_rights, api_store, restore_text


def test_renamed_classes_keep_their_old_names() -> None:
    assert api_store.Answer is api_store.StatusError
    assert api_store.Store is api_store.ObjectStore
    assert api_rights.Request is api_rights.ApiRequest
    assert api_rights.Rule is api_rights.RbacRule
    assert restore_text.Refused is restore_text.TextRefused
