"""A pytest plugin: what ``--user-dir selfkd_fairseq`` does, before fairseq's tests are collected."""

import selfkd_fairseq

selfkd_fairseq.register()
