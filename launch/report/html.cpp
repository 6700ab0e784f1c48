#include "launch/report/html.hpp"

#include <fmt/format.h>

#include "data/files/utf8.hpp"

namespace switchyard::report {

std::string escape(std::string_view text) {
  std::string out;
  for (const char letter : sanitized_utf8(text)) {
    switch (letter) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(letter);
        if ((byte < 0x20 && letter != '\n' && letter != '\t') || byte == 0x7f)
          out += replacement_character;
        else
          out += letter;
      }
    }
  }
  return out;
}

std::string table_html(const Table& table) {
  if (table.rows.empty()) return {};
  std::string out = "<div class=\"wide\"><table><thead><tr>";
  for (const std::string& head : table.heads)
    out += fmt::format("<th tabindex=\"0\">{}</th>", escape(head));
  out += "</tr></thead><tbody>\n";
  for (const std::vector<Cell>& row : table.rows) {
    out += "<tr>";
    for (const Cell& cell : row)
      out += cell.sort_value ? fmt::format("<td class=\"n\" data-v=\"{}\">{}</td>",
                                           *cell.sort_value, escape(cell.text))
                             : fmt::format("<td>{}</td>", escape(cell.text));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string paragraph(std::string_view text) {
  return fmt::format("<p>{}</p>\n", escape(text));
}

std::string folded_text(std::string_view summary, std::string_view text) {
  return fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n", escape(summary),
                     escape(text));
}

std::string section(std::string_view id, std::string_view heading, std::string_view inside) {
  return fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", id, escape(heading), inside);
}

namespace {

// The colours of curves are those of Okabe and Ito, which colour-blind people tell apart; lighter
// on a dark page.
constexpr std::string_view styles = R"(
:root{color-scheme:light dark;--back:#fff;--text:#1a1a1a;--dim:#666;--line:#ddd;--panel:#f6f6f6;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b8860b;--c5:#56b4e9;--c6:#7a3db8;--c7:#555}
@media(prefers-color-scheme:dark){:root{--back:#15181c;--text:#e6e6e6;--dim:#a0a0a0;--line:#3a3f46;
--panel:#1f242a;--c0:#4da6ff;--c1:#ff8c42;--c2:#2fd1a0;--c3:#f0a0cc;--c4:#f0c040;--c5:#8fd3ff;
--c6:#b794f6;--c7:#b0b0b0}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:1200px;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.25rem;border-bottom:1px solid var(--line);margin-top:2rem}
nav a{margin-right:1rem;color:var(--c0)}p{margin:.5rem 0}.dim,figcaption+p{color:var(--dim)}
.wide{overflow:auto;max-height:34rem}thead th{position:sticky;top:0}table{border-collapse:collapse;font-size:.9rem;margin:.6rem 0}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;
overflow-wrap:normal}
td{white-space:nowrap}td:first-child,td:last-child{white-space:normal}td:first-child{min-width:7rem;
overflow-wrap:anywhere}th{cursor:pointer;background:var(--panel)}
th[data-o="1"]::after{content:" \25b2"}th[data-o="-1"]::after{content:" \25bc"}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
pre{background:var(--panel);padding:.6rem;overflow-x:auto;font-size:.85rem;white-space:pre-wrap}
summary{cursor:pointer}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:1.2rem;margin-bottom:1.2rem}
figure{margin:0;break-inside:avoid}figcaption{font-weight:600}figure p{font-size:.85rem;margin:.2rem 0}
svg{width:100%;height:auto;display:block}
svg text{font:12px system-ui,sans-serif;fill:var(--text)}.grid{stroke:var(--line);stroke-width:1}
.l{fill:none;stroke-width:1.6;stroke-linejoin:round}.dash{stroke-dasharray:6 4}
.band{opacity:.2;stroke:none}.frame{fill:none;stroke:var(--dim)}
.key{font-size:.85rem;display:flex;flex-wrap:wrap;gap:.1rem .9rem}
.key i{display:inline-block;width:.8rem;height:.8rem;margin-right:.3rem;border-radius:2px;vertical-align:-1px}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}
.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}.s6{stroke:var(--c6)}.s7{stroke:var(--c7)}
.f0{fill:var(--c0);background:var(--c0)}.f1{fill:var(--c1);background:var(--c1)}
.f2{fill:var(--c2);background:var(--c2)}.f3{fill:var(--c3);background:var(--c3)}
.f4{fill:var(--c4);background:var(--c4)}.f5{fill:var(--c5);background:var(--c5)}
.f6{fill:var(--c6);background:var(--c6)}.f7{fill:var(--c7);background:var(--c7)}
.pale{opacity:.55}
@media(max-width:600px){svg text{font-size:15px}body{padding:.6rem}}
@media print{:root{color-scheme:light;--back:#fff;--text:#000;--dim:#444;--line:#ccc;--panel:#f6f6f6;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b8860b;--c5:#56b4e9;--c6:#7a3db8;--c7:#555}
*{print-color-adjust:exact}nav{display:none}body{max-width:none;font-size:11px}.wide{overflow:visible;max-height:none}
.figures{grid-template-columns:1fr 1fr}h2,h3{break-after:avoid}table{font-size:7px}th,td{padding:1px 2px}
td{white-space:normal}td:first-child{min-width:0}}
)";

// A click on a head sorts by that column, a second one the other way round.
constexpr std::string_view script = R"(
for(const t of document.querySelectorAll("table"))t.querySelectorAll("th").forEach((h,i,all)=>{
const value=r=>{const c=r.cells[i];return c.dataset.v===undefined?c.textContent:Number(c.dataset.v)};
const sort=()=>{const o=h.dataset.o==="1"?-1:1;all.forEach(x=>delete x.dataset.o);h.dataset.o=o;
const rows=[...t.tBodies[0].rows].sort((a,b)=>{const x=value(a),y=value(b);
return o*(typeof x==="number"&&typeof y==="number"?x-y:String(x).localeCompare(String(y)))});
t.tBodies[0].append(...rows)};
h.onclick=sort;h.onkeydown=e=>{if(e.key==="Enter")sort()}});
)";

}  // namespace

std::string document(std::string_view title, std::string_view inside) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n{}<script>{}</script>\n</body>\n"
      "</html>\n",
      escape(title), styles, inside, script);
}

}  // namespace switchyard::report
