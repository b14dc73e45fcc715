"""Sentences out of the markup of IWSLT and WMT."""

import pytest

from selfkd_fairseq.data.translation.markup import segment_sentence, talk_sentence


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("<url>http://www.ted.com/talks/x.html</url>", None),
        ("<keywords>talks, science</keywords>", None),
        ("<talkid>535</talkid>", None),
        ("<title>A title: of a talk</title>", "A title: of a talk"),
        ("<description>TED Talk Subtitles: someone</description>", "TED Talk Subtitles: someone"),
        (" And so <em>on</em>. ", " And so <em>on</em>. "),
        ("", ""),
    ],
)
def test_talks(line, expected):
    assert talk_sentence(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('<seg id="1"> Vielen Dank. </seg>', "Vielen Dank."),
        ('<seg id="12">It’s &amp; isn’t</seg>', "It’s &amp; isn’t"),
        ('   <seg id="3"></seg>  ', "   "),
        ('<doc docid="1" genre="lectures">', None),
        ("<title>not a segment</title>", None),
        ("</doc>", None),
    ],
)
def test_segments(line, expected):
    assert segment_sentence(line) == expected
