"""The figures of the study of limits, by gnuplot."""
import math
import subprocess

HEAD = """set terminal pngcairo noenhanced size 900,560 font "sans,11"
set grid lc rgb "#dddddd"
set key outside right top
"""


def draw(path, settings, series, style="linespoints"):
    """series: title, rows of x, y and optional least and largest y; title may end in " hollow" for published points."""
    series = [(title, [row for row in rows if all(not math.isnan(value) for value in row)]) for title, rows in series]
    series = [(title, rows) for title, rows in series if rows]
    if not series:
        return False
    text = HEAD + f'set output "{path}"\n' + settings + "\n"
    parts = []
    for index, (title, rows) in enumerate(series):
        text += f"$data{index} << END\n" + "".join(" ".join(f"{value:.8g}" for value in row) + "\n" for row in rows) + "END\n"
        hollow = title.endswith(" hollow")
        look = "points pt 4 ps 1.6 lc rgb '#777777'" if hollow else f"{style} pt {5 + index} dt {1 + index // 8} lc {index + 1}"
        name = title.removesuffix(" hollow")
        parts.append(f"$data{index} using 1:2 with {look} title '{name}'")
        if len(rows[0]) == 4:
            parts.append(f"$data{index} using 1:2:3:4 with yerrorbars pt 0 lc {index + 1} notitle")
    subprocess.run(["gnuplot"], input=text + "plot " + ", ".join(parts) + "\n", text=True, check=True)
    return True
