"""Sentences with personal data made up for this project, with the places of what is to be found; and sentences with none.

In: a seed. Out: `Labelled` texts. Numbers have right check digits and are nobody's on purpose: they are drawn at random. Near misses
(`wrong`) have the same shape and a wrong check digit. Written as people write: full width, hyphens of many kinds, spaces, a line break.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tsuzuri.guard import corpus
from tsuzuri.guard.checks import corporate_number, drivers_licence, my_number
from tsuzuri.guard.checks._names import GIVEN, SURNAMES

# not in the dictionary of the check
RARE = "勅使河原 御手洗 蓮見 鷲尾 刈谷 砂川 檜垣 猪瀬 鵜飼 蛭田 樫村 苅部 薄井 諏訪 鯨井 与那嶺 一ノ瀬 百瀬 道下 葛西".split()  # noqa: SIM905
RARE_GIVEN = "琉生 紗良 奏多 千紘 蒼介 匠海 小夜 依子 弥一 泰造".split()  # noqa: SIM905
WIDE = str.maketrans(
    "0123456789-@.abcdefghijklmnopqrstuvwxyzTABCMK",
    "０１２３４５６７８９－＠．ａｂｃｄｅｆｇｈｉｊｋｌｍｎｏｐｑｒｓｔｕｖｗｘｙｚＴＡＢＣＭＫ",
)
TOWNS = """
東京都千代田区丸の内 東京都港区六本木 東京都新宿区西新宿 東京都世田谷区三軒茶屋 東京都八王子市元本郷町 東京都武蔵野市吉祥寺本町 神奈川県横浜市西区みなとみらい
神奈川県川崎市川崎区宮本町 神奈川県藤沢市朝日町 埼玉県さいたま市大宮区桜木町 千葉県船橋市湊町 千葉県市川市八幡 茨城県つくば市研究学園 栃木県宇都宮市旭 群馬県前橋市大手町
北海道札幌市中央区北一条西 北海道函館市東雲町 青森県八戸市内丸 宮城県仙台市青葉区国分町 福島県いわき市平 新潟県新潟市中央区学校町通 石川県金沢市広坂 長野県松本市丸の内
静岡県浜松市中央区元城町 愛知県名古屋市中区三の丸 愛知県豊田市西町 三重県津市西丸之内 滋賀県大津市御陵町 京都府京都市中京区寺町通御池上る上本能寺前町 大阪府大阪市北区中之島
大阪府堺市堺区南瓦町 兵庫県神戸市中央区加納町 奈良県奈良市二条大路南 和歌山県和歌山市七番丁 岡山県岡山市北区大供 広島県広島市中区国泰寺町 山口県下関市南部町 香川県高松市番町
愛媛県松山市二番町 高知県高知市本町 福岡県福岡市中央区天神 福岡県北九州市小倉北区城内 佐賀県佐賀市栄町 長崎県長崎市魚の町 熊本県熊本市中央区手取本町 鹿児島県鹿児島市山下町
沖縄県那覇市泉崎 沖縄県うるま市みどり町 横浜市鶴見区鶴見中央 名古屋市中村区名駅 大阪市天王寺区真法院町 札幌市北区北八条西 神戸市灘区桜口町 京都市左京区吉田本町 港区芝公園 渋谷区道玄坂
""".split()  # noqa: SIM905
BUILDINGS = ("", "", "", "", " 綴りビル3階", " 中央マンション201号室", "青葉ハイツ102", " 第一ビル", "サンコーポ305号室")


@dataclass(frozen=True, slots=True)
class Labelled:
    """`spans`: (kind, start, stop) of what is to be found, nothing for a near miss; `kind` is what the sentence is about."""

    text: str
    kind: str
    group: str
    spans: tuple[tuple[str, int, int], ...]


def labelled(each: int = 30, seed: int = 1, *, fresh: bool = False) -> list[Labelled]:
    """`each` sentences of every template, and of every one with a check digit a third as many near misses; of those that the checks were
    written beside, or of the fresh ones, which came after."""
    file = corpus.read("personal")
    kinds, none = (file["fresh"], file["fresh_none"]) if fresh else (file["personal"], file["none"])
    assert isinstance(kinds, dict) and isinstance(none, list)
    return [
        *(one for kind, templates in kinds.items() for template in templates for one in _of(kind, template, each, seed)),
        *(one for template in none for one in _none(template, each, seed)),
    ]


def special(each: int = 10, seed: int = 1, *, fresh: bool = False) -> list[Labelled]:
    """Sentences that tell of a person what the law asks special care for, each with its category as `kind`, and talk in general, of kind `none`;
    of those that the check was written beside, or of the fresh ones, which came after."""
    file = corpus.read("special_care")
    fill = file["fill"]
    kinds, none = (file["fresh"], file["fresh_general"]) if fresh else (file["told"], file["general"])
    assert isinstance(fill, dict) and isinstance(kinds, dict) and isinstance(none, list)
    found = []
    for kind, templates in [*kinds.items(), ("none", none)]:
        for template in templates:
            draw = random.Random(f"{seed} {template}")  # noqa: S311  not for secrets
            for text in dict.fromkeys(corpus.filled(template, fill, draw) for _ in range(each)):
                before, _, rest = text.partition("[[")
                value, _, after = rest.partition("]]")
                span = (f"special_care.{kind}", len(before), len(before) + len(value))
                found.append(Labelled(before + value + after, kind, template, (span,) if value else ()))
    return found


def _of(kind: str, template: str, each: int, seed: int) -> Iterator[Labelled]:
    draw = random.Random(f"{seed} {template}")  # noqa: S311  not for secrets
    before, after = template.split("{v}")
    found = "name" if kind == "full_name" else kind
    for _ in range(each):
        value = VALUES[kind](draw)
        label_start = len(before)
        if kind == "postal_code" and before.endswith("〒"):
            label_start -= 1  # the mark belongs to what is found
        text = before + value + after
        span = (found, label_start, len(before) + len(value))
        yield Labelled(text, kind, template, (span,))
    if kind in WRONG:
        for _ in range(each // 3):
            yield Labelled(before + WRONG[kind](draw) + after, kind, template, ())


def _none(template: str, each: int, seed: int) -> Iterator[Labelled]:
    draw = random.Random(f"{seed} {template}")  # noqa: S311
    fill = {f"d{n}": n for n in range(1, 14)}
    for _ in range(each):
        text = template
        for name, count in fill.items():
            while f"{{{name}}}" in text:
                text = text.replace(f"{{{name}}}", _digits(draw, count), 1)
        text = text.replace("{day}", str(draw.randint(1, 28))).replace("{hour}", str(draw.randint(8, 18)))
        yield Labelled(text, "none", template, ())


def _digits(draw: random.Random, count: int) -> str:
    return str(draw.randint(1, 9)) + "".join(str(draw.randint(0, 9)) for _ in range(count - 1))


def _written(draw: random.Random, groups: list[str], *, joined: bool = True) -> str:
    """Groups of digits as someone might write them."""
    style = draw.choice(["-", "-", " ", "wide", "dash", "long", "line"] + (["", ""] if joined else []))
    match style:
        case "wide":
            return "-".join(groups).translate(WIDE)
        case "dash":
            return draw.choice("‐−–").join(groups)
        case "long":
            return "ー".join(groups)
        case "line":
            return "-\n".join([groups[0], "-".join(groups[1:])])
    return style.join(groups)


def _my_number(draw: random.Random, wrong: int = 0) -> str:
    first = [draw.randint(0, 9) for _ in range(11)]
    number = "".join(map(str, [*first, (my_number.check_digit(first) + wrong) % 10]))
    return _spaced(draw, number, (4, 4, 4))


def _corporate(draw: random.Random, wrong: int = 0) -> str:
    rest = [draw.randint(0, 9) for _ in range(12)]
    number = f"{(corporate_number.check_digit(rest) + wrong - 1) % 9 + 1}" + "".join(map(str, rest))
    return draw.choice(
        [
            number,
            f"T{number}",
            number.translate(WIDE),
            f"T{number}".translate(WIDE),
            "-".join([number[0], number[1:5], number[5:9], number[9:]]),
        ]
    )


def _licence(draw: random.Random, wrong: int = 0) -> str:
    first = [draw.randint(3, 8), draw.randint(0, 9), *(draw.randint(0, 9) for _ in range(8))]
    right = drivers_licence.check_digits(first)
    check = right[0] if not wrong else draw.choice([n for n in range(10) if n not in right])
    number = "".join(map(str, [*first, check, draw.randint(0, 3)]))
    return draw.choice([number, number.translate(WIDE)])


def _card(draw: random.Random, wrong: int = 0) -> str:
    prefix, length = draw.choice(
        [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("3528", 16), ("3589", 16), ("34", 15), ("37", 15), ("36", 14), ("6011", 16)]
    )
    body = [*map(int, prefix), *(draw.randint(0, 9) for _ in range(length - len(prefix) - 1))]
    total = sum(digit * 2 - 9 * (digit > 4) if n % 2 == 0 else digit for n, digit in enumerate(reversed(body)))
    number = "".join(map(str, [*body, (-total + wrong) % 10]))
    return _spaced(draw, number, {16: (4, 4, 4, 4), 15: (4, 6, 5), 14: (4, 6, 4)}[length])


def _spaced(draw: random.Random, number: str, sizes: tuple[int, ...]) -> str:
    groups, at = [], 0
    for size in sizes:
        groups.append(number[at : at + size])
        at += size
    style = draw.choice(["", "-", " ", "wide", "dash"])
    if style == "wide":
        return "-".join(groups).translate(WIDE)
    return (draw.choice("‐−–") if style == "dash" else style).join(groups)


def _telephone(draw: random.Random) -> str:  # noqa: PLR0911  one return a way of writing
    kind = draw.choice(["mobile", "mobile", "city", "city", "town", "free", "ip", "abroad", "bracket", "kanji"])
    area, size = draw.choice(
        [("03", 4), ("06", 4), ("045", 3), ("052", 3), ("092", 3), ("011", 3), ("0263", 2), ("0742", 2), ("0466", 2), ("098", 3), ("04", 4)]
    )
    match kind:
        case "mobile":
            return _written(draw, [draw.choice(["090", "080", "070"]), _digits(draw, 4), _digits(draw, 4)])
        case "free":
            return _written(draw, ["0120", _digits(draw, 3), _digits(draw, 3)])
        case "ip":
            return _written(draw, ["050", _digits(draw, 4), _digits(draw, 4)])
        case "abroad":
            return f"+81{draw.choice(['-', ' '])}{draw.choice(['90', '80', '3', '6'])}-{_digits(draw, 4)}-{_digits(draw, 4)}"
        case "bracket":
            return draw.choice([f"{area}({_digits(draw, size)}){_digits(draw, 4)}", f"({area}){_digits(draw, size)}-{_digits(draw, 4)}"])
        case "kanji":
            return f"0{draw.choice('789')}0-{_digits(draw, 4)}-{_digits(draw, 4)}".translate(
                str.maketrans("0123456789-", "〇一二三四五六七八九の")
            )
    return _written(draw, [area, _digits(draw, size), _digits(draw, 4)])


def _postal(draw: random.Random) -> str:
    code = f"{_digits(draw, 3)}-{_digits(draw, 4)}"
    return draw.choice([code, code, code.translate(WIDE), code.replace("-", ""), code.replace("-", "ー"), code.replace("-", "‐")])


def _account(draw: random.Random) -> str:
    number = f"{draw.randint(0, 9999999):07d}"
    return draw.choice([number, number, number.translate(WIDE)])


def _pension(draw: random.Random) -> str:
    number = f"{_digits(draw, 4)}-{_digits(draw, 6)}"
    return draw.choice([number, number, number.translate(WIDE), number.replace("-", ""), number.replace("-", "−")])


def _insurance(draw: random.Random) -> str:
    number = draw.choice([_digits(draw, 8), _digits(draw, 6), _digits(draw, 4)])
    return draw.choice([number, number.translate(WIDE)])


def _address_of_machine(draw: random.Random) -> str:
    four = ".".join(["203", "0", "113", str(draw.randint(1, 254))]) if draw.random() < 0.5 else f"198.51.100.{draw.randint(1, 254)}"
    six = f"2001:db8:{draw.randint(1, 9999)}::{draw.randint(1, 9999)}"
    return draw.choice([four, four, four.translate(WIDE), six])


def _passport(draw: random.Random) -> str:
    number = draw.choice(["TR", "TK", "TZ", "MU", "TT"]) + _digits(draw, 7)
    return draw.choice([number, number, number.translate(str.maketrans("0123456789TRKZMU", "０１２３４５６７８９ＴＲＫＺＭＵ"))])


def _email(draw: random.Random) -> str:
    name = draw.choice(["taro", "hanako.y", "info", "k_sato", "m-suzuki", "a.b.c", "user+1", "sales2026"])
    address = f"{name}@{draw.choice(['example.jp', 'example.co.jp', 'mail.example.com', 'tsuzuri.example', 'x-y.example.or.jp'])}"
    return draw.choice([address, address, address.translate(WIDE), address.replace("@", "(at)")])


def _name(draw: random.Random) -> str:
    surname = draw.choice(RARE) if draw.random() < 0.15 else draw.choice(SURNAMES)
    given = draw.choice(RARE_GIVEN) if draw.random() < 0.15 else draw.choice(GIVEN)
    return draw.choice([surname, surname, surname + given, f"{surname} {given}", f"{surname}　{given}"])


def _full(draw: random.Random) -> str:
    surname = draw.choice(RARE) if draw.random() < 0.15 else draw.choice(SURNAMES)
    given = draw.choice(RARE_GIVEN) if draw.random() < 0.15 else draw.choice(GIVEN)
    return surname + draw.choice(["", " ", "　"]) + given


def _address(draw: random.Random) -> str:
    a, b, c = draw.randint(1, 9), draw.randint(1, 40), draw.randint(1, 20)
    number = draw.choice(
        [
            f"{a}-{b}-{c}",
            f"{a}丁目{b}番{c}号",
            f"{a}丁目{b}-{c}",
            f"{b}番地",
            f"{a}-{b}",
            f"{b}番地の{c}",
            f"{'一二三四五六七八九'[a - 1]}丁目{b}番{c}号",
        ]
    )
    if draw.random() < 0.3:
        number = number.translate(WIDE)
    return draw.choice(TOWNS) + number + draw.choice(BUILDINGS)


VALUES: dict[str, Callable[[random.Random], str]] = {
    "my_number": _my_number, "corporate_number": _corporate, "telephone": _telephone, "postal_code": _postal, "bank_account": _account,
    "drivers_licence": _licence, "passport": _passport, "card": _card, "email": _email, "name": _name, "full_name": _full, "postal_address": _address,
    "basic_pension": _pension, "health_insurance": _insurance, "ip_address": _address_of_machine,
}  # fmt: skip
WRONG: dict[str, Callable[[random.Random], str]] = {
    "my_number": lambda draw: _my_number(draw, draw.randint(1, 9)),
    "corporate_number": lambda draw: _corporate(draw, draw.randint(1, 8)),
    "drivers_licence": lambda draw: _licence(draw, 1),
    "card": lambda draw: _card(draw, draw.randint(1, 9)),
}
