"""Reads a page of `switchyard report` as a browser would: elements must close in order, and nothing may be loaded.
    report_page.py PAGE ID...    fails unless the page has an element of each id; prints its text"""
import html.parser
import sys

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.scripts, self.text, self.drawn = [], [], 0, [], {}

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            assert name not in ("src", "srcset", "data", "poster", "action"), f"<{tag} {name}={value}> loads"
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name in ("href", "xlink:href"):
                assert value.startswith("#"), f"<{tag} {name}={value}> leads away"
            if name == "id":
                assert value not in self.ids, f"two elements are called {value}"
                self.ids.append(value)
                self.figure = value
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), f"<{tag}>"
        self.scripts += tag == "script"
        if tag in ("path", "circle", "rect"):
            self.drawn[self.figure] = self.drawn.get(self.figure, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} in line {self.getpos()[0]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)
        else:
            assert "@import" not in data and "url(" not in data and "fetch(" not in data, data


source = open(sys.argv[1], encoding="utf-8").read()
page = Page()
page.feed(source)
page.close()
assert not page.open, f"not closed: {page.open}"
assert page.scripts == 1, f"{page.scripts} scripts"
for wanted in sys.argv[2:]:
    assert wanted in page.ids, f"no element is called {wanted}; there are {page.ids}"
    assert page.drawn.get(wanted, 0) > 4, f"nothing is drawn in {wanted}"
print("".join(page.text))
