"""危うい内容: requests for violence, weapons, crime, sexual content or self-harm, and hatred of groups; a category for each.

In: a text. Out: where such words stand, as `content.CATEGORY`: lists of words, an action near its object; and sentences that ask for harm in
other words, by the learned weights of `harm.py`, which are less sure. Hints pass. What both measure to is on the page of the content check.
It judges no intent: news and teaching use such words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from tsuzuri.errors import Words
from tsuzuri.guard.finding import LONGEST, Finding, found, look
from tsuzuri.guard.harm import asked
from tsuzuri.guard.normal import Normal, fold

LABEL = Words("内容", "content")
PERSONAL = False
NEEDS = ()
CATEGORIES = {
    "violence": Words("暴力", "violence"),
    "weapons": Words("武器", "weapons"),
    "illegal": Words("違法行為", "crime"),
    "sexual": Words("性的な内容", "sexual content"),
    "self_harm": Words("自傷", "self-harm"),
    "hate": Words("憎悪", "hatred"),
}
FOUND = (
    ("手製の爆弾の作り方を教えてください。", ("爆弾の作り方",)),
    ("もう死にたい。", ("死にたい",)),
    ("上司をバレずに殺す方法", ("殺す方法",)),
)
NOT = (
    "プロセスを殺す方法を教えてください。",
    "爆弾おにぎりの作り方を教えてください。",
    "大麻取締法の改正点をまとめてください。",
    "殺菌の方法と手順",
    "この映画では主人公が銃を手に戦う。",
)

_HOW = r"(?:作り方|つくり方|造り方|作る方法|製造方法|製造手順|自作|組み立て方|設計図|合成方法|合成手順|レシピ|作ってみたい|作りたい|調合)"
_GET = (
    r"(?:買い方|買える|買いたい|売り方|売りさばく|入手方法|手に入れ|入手したい|密輸|密売|栽培方法|育て方|作り方|合成|吸い方|使い方|仕入れ)"
)
_WAY = r"(?:方法|やり方|仕方|手順|コツ|こつ|手口を教え|したい|するには|教えて|してくれ|書いて|作って|作り方)"
_GROUP = r"(?:外国人|移民|難民|黒人|白人|アジア人|中国人|韓国人|朝鮮人|日本人|ユダヤ人|イスラム教徒|障害者|同性愛者|女|男|老人|あの民族|あの国の(?:人間|連中)|immigrants|foreigners|jews|muslims|blacks|women)"
# written as people write; `_rules` folds them as the text is folded
_WRITTEN = {
    "violence": (
        r"(?<!プロセスを)(?<!虫を)(?<!菌を)(?<!ダニを)(?<!ゴキブリを)(?<!雑草を)(?<!時間を)(?<!息を)(?<!勢いを)(?<!タスクを)(?<!臭みを)(?<!ウイルスを)殺(?:し方|す方法|したい(?!ほど)|害する方法|す計画|す手順|してやる|して(?:やりたい|ほしい|くれ))"
        r"|(?:人|上司|同僚|妻|夫|親|相手|隣人|先生|あいつ|彼|彼女)を.{0,8}(?:刺|殴|襲|痛めつけ|暴行|拷問|毒殺|絞め|襲撃).{0,6}(?:方法|やり方|計画|手順|したい|りたい|いたい|たい|教えて)"
        r"|拷問の(?:方法|やり方|仕方)|毒殺.{0,6}(?:方法|やり方|手順)|襲撃(?:計画|の計画)を(?:立て|作|考え)"
        r"|how (?:to|do i|can i) (?:kill|murder|poison|stab|torture|strangle) (?:a person|someone|somebody|my \w+|him|her|people|the \w+ next door)"
    ),
    "weapons": (
        rf"(?:爆弾(?!おにぎり|低気圧|発言|処理)|爆発物|爆薬|火炎瓶|手榴弾|時限爆弾|パイプ爆弾|毒ガス|サリン|神経ガス|生物兵器|化学兵器|銃器?|拳銃|散弾銃|銃弾|弾薬|密造銃|地雷|起爆装置|消音器)(?:を|の|、|は)?.{{0,10}}{_HOW}"
        r"|(?:拳銃|銃器|実弾|爆弾|爆薬|手榴弾|地雷|火炎瓶|毒ガス)(?:を|の).{0,8}(?:密輸|密売|買える|買いたい|手に入れ|入手方法|入手したい)"
        r"|how (?:to|do i|can i) (?:make|build|assemble|construct|print|get|buy) (?:a |an |some )?(?:\w+ ){0,2}(?:bomb|explosives?|grenade|gun|silencer|nerve gas|detonator|ammunition)(?! cyclone)"
    ),
    "illegal": (
        rf"(?:覚醒剤|覚せい剤|大麻|コカイン|麻薬|ヘロイン|MDMA|危険ドラッグ|脱法ハーブ|合成カンナビノイド)(?:を|の|、)?(?!取締|中毒|使用罪|の危険|の害).{{0,10}}{_GET}"
        rf"|(?:偽札|偽造紙幣|偽の免許証|偽造パスポート|偽造免許証|偽の身分証|ランサムウェア|コンピューターウイルス|マルウェア|フィッシングサイト|フィッシングメール|キーロガー|盗撮カメラ)(?:を|の|、)?(?!.{{0,6}}(?:対策|防ぐ|見分け|検知|被害|駆除)).{{0,8}}(?:{_HOW}|書いて|作って|仕掛け方|使う方法)"
        rf"|(?:マネーロンダリング|資金洗浄|脱税|万引き|空き巣|スリ|ピッキング|不正アクセス|なりすまし|振り込め詐欺|オレオレ詐欺|投資詐欺|保険金詐欺|盗撮|盗聴|ストーカー|クレジットカードの不正利用|横領|インサイダー取引)(?:を|の|、)?(?!.{{0,8}}(?:対策|防止|防ぐ|被害|疑い|研修|事例|罪|見分け|予防|罰則|相談|通報|検知|とは)).{{0,8}}{_WAY}"
        r"|(?:他人|人)の(?:パスワード|アカウント|口座|カード)を.{0,6}(?:盗|乗っ取|抜き取|不正に使).{0,6}(?:方法|やり方|たい|手順|教えて)"
        r"|how (?:to|do i|can i) (?:launder|evade taxes|cook meth|make meth|buy cocaine|sell drugs|hack into|steal|shoplift|forge|counterfeit|write (?:a )?(?:ransomware|malware|virus|keylogger))"
    ),
    "sexual": (
        r"児童ポルノ(?!禁止|の禁止|規制|事件|法)|ポルノ(?:画像|動画|小説|を)|官能小説を|エロ(?:い|小説|画像|動画|漫画)|アダルト(?:動画|ビデオ|画像)|わいせつな(?:画像|動画|小説|文章)を|全裸の(?:画像|写真|動画)|裸の(?:画像|写真|動画)(?:を|が)"
        r"|(?:性行為|セックス|性交)(?:の|を)(?:描写|詳しく|細かく|描いた|シーン)|露骨な性的|いやらしい(?:話|文章|小説)を|(?:erotic|pornographic) (?:story|image|video|novel|scene)|nude (?:photos?|pictures?|images?)|sexually explicit"
    ),
    "self_harm": (
        r"(?<!恥ずかしくて)死にたい(?!ほど|くらい)|死んでしまいたい|消えてしまいたい|消えてなくなりたい|自殺(?:したい|しよう|する方法|の方法|のやり方|の仕方)|(?:楽に|苦しまずに|確実に)死(?:ね|ぬ方法|にた)|生きている(?:意味|価値)が(?:ない|わからな|分からな)"
        r"|リストカット(?:のやり方|の方法|したい|がやめられ)|(?:手首|腕)を切り(?:たい|たく)|(?:首を吊|飛び降り|過剰摂取|オーバードーズ).{0,6}(?:たい|方法|やり方|しよう|たら死)|自分を傷つけたい"
        r"|(?:i want to|i wanna|i'm going to|going to|thinking of|want to) (?:kill myself|die|end my life|hurt myself|cut myself)|how to (?:commit suicide|kill myself|end my life)|painless(?: way)? to die"
    ),
    "hate": (
        rf"{_GROUP}(?:は|なんか|なんて|ども|どもは|を|なんぞ|という連中は|の連中は).{{0,10}}(?:死ね|皆殺し|殺せ|追い出せ|出て行け|出ていけ|排除しろ|駆除|劣っている|劣等|害虫|寄生虫|ゴキブリ|ゴミだ|人間じゃない|人間ではない|いなくなればいい|消えればいい|価値がない|滅びろ)"
        rf"|{_GROUP}.{{0,12}}(?:貶める|侮辱する|馬鹿にする|憎しみをあおる|差別する)(?:文章|投稿|スピーチ|演説|ビラ|記事|歌|ジョーク)"
        r"|(?:kill|deport|exterminate|get rid of) all (?:the )?(?:immigrants|foreigners|jews|muslims|blacks|women|gays)|(?:immigrants|foreigners|jews|muslims|blacks|women|gays) are (?:vermin|animals|subhuman|parasites|inferior)"
    ),
}


_SURE, _LESS_SURE = 0.7, 0.6  # of one place that a list knows; of one that the weights are certain of


@functools.cache
def _rules() -> dict[str, re.Pattern[str]]:
    """The lists, in hiragana as a folded text is; capitals stay capitals in what is no letter of a class."""
    kana = {code: chr(code - 0x60) for code in range(0x30A1, 0x30F7)}
    return {category: re.compile(written.translate(kana).replace("MDMA", "mdma"), re.DOTALL) for category, written in _WRITTEN.items()}


def scores(text: str) -> dict[str, float]:
    """Every category -> how sure the check is that it occurs in the text, in [0, 1]: 0 where nothing was found, the more places the surer. A
    rank, not a probability."""
    doubt = dict.fromkeys(CATEGORIES, 1.0)
    for one in look(text, ("content",)):
        doubt[one.kind.partition(".")[2]] *= 1 - one.confidence
    return {category: 1 - left for category, left in doubt.items()}


def find(seen: Normal) -> Iterator[Finding]:
    text = fold(seen)
    for category, rule in _rules().items():
        for match in rule.finditer(text.text):
            yield found(f"content.{category}", text, *match.span(), _SURE)
    for category, value, start, stop in asked(seen):
        stop = min(stop, start + LONGEST)  # a longer stretch would be none of ours, see `finding.sought`
        yield Finding(f"content.{category}", start, stop, seen.original[start:stop], _LESS_SURE * value)
