"""How much a text asks for harm, and for which: what stands beside the lists of the content check, for what is put in other words.

In: a text as it is read. Out: runs of sentences at or above the one threshold, each with its category. It is the same machinery as the
injection score (`score.py`): classes of words alone and in twos, and n-grams, weighed together; the weights come from `train.py`. Words of
prevention, law, news and fiction speak against. It refuses nothing, and knows no intent.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources

from tsuzuri.guard.lexicon import Lexicon
from tsuzuri.guard.normal import Normal, fold
from tsuzuri.guard.score import Signs, Weights, runs, values, weighed
from tsuzuri.guard.words import SHAPES

FILE = "harm.json"

LEXICON = Lexicon({
    "hurt": "殺|殴|刺し|刺す|刺せ|襲|暴行|暴力|傷つけ|傷を負わ|痛めつけ|痛い目|仕返し|復讐|報復|拷問|半殺し|絞め|毒|脅し|脅す|脅迫|いじめ|虐待|突き落と|襲撃|誘拐|連れ去|監禁|人質|立てこも|暗殺|死体|遺体|放火|燃やす|轢|ひき殺|息の根|気絶|急所|叩き方|怪我をさせ|苦しめ|壊すやり方|kill|murder|stab|poison|torture|beat up|attack|kidnap|assassinat|strangle|hurt|threat|dead body|病院送り|怖がらせ|恐怖を|黙らせ|追い込|待ち伏せ|さらって|さらう|閉じ込め|震え上が|死なせ|逝かせ|手荒|突っ込む|罠を|孤立させ|二度と立て|むごい|手を上げ|虐げ|亡き者|intimidat|ambush|unconscious|afraid to|injure|bully",
    "weapon": "爆弾|爆発|爆薬|爆破|火薬|起爆|銃|拳銃|ライフル|弾丸|実弾|弾薬|手榴弾|ナイフ|刃物|包丁|日本刀|兵器|武器|毒ガス|有毒|サリン|神経剤|細菌|病原|炭疽|放射性|核|地雷|火炎瓶|発火装置|ミサイル|スタンガン|ボウガン|猟銃|テロ|bomb|explosi|gun|firearm|rifle|pistol|bullet|grenade|incendiary|weapon|nerve gas|poison gas|anthrax|terroris|knife|ammunition|調合|爆発する|猛毒|撃てる|威力|凶器|吹き飛ば|napalm|silencer|blueprint|nerve agent|chlorine|suicide vest|detonat|weaponi|enrich",
    "drug": "大麻|覚醒剤|覚せい剤|コカイン|麻薬|ヘロイン|薬物|ドラッグ|lsd|mdma|シャブ|マリファナ|ハシシ|合成カンナビノイド|売人|密売|幻覚|違法な薬|cocaine|meth lab|crystal meth|heroin|marijuana|cannabis|dealer|opioid|fentanyl|drugs|処方なし|処方箋なし|陽性|薬物検査|依存性の|weed|drug test|fake prescription|painkillers without",
    "crime": "盗|万引|空き巣|強盗|スリ|泥棒|窃盗|横領|使い込|着服|だまし|騙し|騙す|詐欺|恐喝|脅し取|偽造|偽の|偽札|贋|不正|違法|非合法|密輸|密入国|賄賂|脱税|所得の隠|資金洗浄|マネーロンダリング|闇|裏口|抜け道|なりすま|他人名義|忍び込|こじ開け|ピッキング|鍵を壊|水増し|架空|改ざん|書き換え|粉飾|偽証|嘘の証言|証拠隠滅|転売|海賊版|無断|ねずみ講|マルチ|賭博|人身売買|売り買い|買収|飲酒運転|steal|theft|burgl|break into|fraud|scam|forge|fake|counterfeit|smuggl|brib|launder|illegal|tax|cheat|shoplift|stolen|blackmail|こっそり金|現金を抜|金庫|通帳|偽サイト|領収書|裏帳簿|売上を少な|汚れた金|投資話|装って|身分証|検問|保険金|未公開情報|入札|残業を記録|嘘の証言|海賊|闇バイト|受け子|投票用紙|デマ|つぶしたい|空き家に勝手|ナンバーを|義援金|預金を引き出|押し入|煙草を買|不当に|smuggle|certificates|hide assets|setting off|pick the lock|vote twice|proctored|evade|without a licen",
    "cyber": "ハッキング|ハッキン|ハッカー|侵入|不正アクセス|乗っ取|マルウェア|ランサム|身代金|ウイルス|フィッシング|偽サイト|キーロガー|ddos|クラック|パスワードを破|パスワードを盗|パスワードを抜|盗聴|監視アプリ|脆弱性|ボットネット|総当たり|攻撃コード|malware|ransom|phish|keylog|virus|trojan|exploit|botnet|crack|のぞき見|盗み見|割り出|暗号化して|大量のアクセス|落とす道具|止める攻撃|忍び込み|get into someone|encrypts|steals|browser passwords|log into",
    "spy": "盗撮|盗み撮り|隠しカメラ|隠し撮り|尾行|ストーカー|つきまと|居場所|自宅の住所|住所を調べ|住所を特定|住所を突き止|特定して|特定する方法|個人情報を調べ|個人情報を入手|個人情報を集め|個人情報を晒|晒し|track my|stalk|spy on|without her know|without his know|without their know|dox|in secret|本名と住所|見張りたい|見張る|家を突き止|後をつけ|home address|secretly record|track my|under skirts|without being noticed",
    "sex": "性的|性行為|性交|セックス|裸|ヌード|エロ|えっち|エッチ|アダルト|ポルノ|わいせつ|猥褻|いやらし|淫|官能|下着|陰部|性器|自慰|オナニー|レイプ|強姦|痴漢|ベッドシーン|喘ぎ|風俗嬢|売春|援助交際|獣姦|近親相姦|胸を触|体を触|誘惑|口説き|興奮|sex|nude|naked|porn|erotic|rape|prostitut|dirty story|fetish|過激な|行為の最中|水着|関係を持つ|卑猥|連れ帰|ホテルに行|更衣室|露骨|濡れ場|生々しく|性の対象|体に触れ|dirty|undress|explicit|sexual|seduce",
    "minor": "未成年|小学生|中学生|女子高生|高校生|児童|幼女|ロリ|子ども|子供|赤ん坊|minor|underage|child|女子中学|schoolgirl|classmate",
    "self": "死にたい|死んで|死に方|死ね|消えたい|消えてしま|自殺|自傷|リストカット|手首|腕を切|切り続け|命を絶|人生を終|終わりにし|人生を終わらせ|自分を終わらせ|命を終わらせ|すべてを終わらせ|全部を終わらせ|何もかもを終わらせ|終わらせる方法|楽になりたい|楽になる|遺書|首を吊|首に縄|首吊|飛び降り|飛び込|練炭|過剰摂取|オーバードーズ|大量に飲|目が覚め|最期|生きるのに|生きていたく|生きている意味|生きている価値|いないほうが|この世から|自分を罰|吐いて|痩せ|睡眠薬|suicid|kill myself|end my life|end it all|cutting my|hurt myself|overdose|goodbye note|starve myself|alive any more|never wake up|better off without|この世を去|逝き|逝ける|死ぬには|死ぬ方法|血が止まら|血を流|生まれてこなけれ|衰弱|決心がつ|苦しくない死|楽になる薬|深く傷|傷を増や|吐けば|息をするのもつら|終われますか|can't go on|way out|i were gone|throw up|never come back|miss me|last day|cuts on|least painful|disappear",
    "group": "外国人|移民|難民|黒人|白人|アジア人|中国人|韓国人|朝鮮人|在日|クルド|ユダヤ|イスラム|ムスリム|キリスト教|仏教徒|障害|発達障害|同性愛|ゲイ|レズ|lgbt|トランスジェンダー|性的少数|女性|女は|女なんか|女って|男性|男は|老人|年寄り|高齢者|老害|貧乏|ホームレス|生活保護|無職|ニート|部落|同和|アイヌ|沖縄の人|民族|人種|国籍|出身者|肌の色|宗教|信者|デブ|ブス|ハゲ|太った|低学歴|田舎者|immigrant|refugee|foreigner|muslim|jew|black people|women|gay|disabled|race|elderly|lesbian|連中|あの国|転校生|地方出身|知的障害|religion|nationality|people of|that country|シングルマザー|migrant",
    "despise": "劣|馬鹿|バカ|頭が悪|見下|差別|侮辱|嘲|笑いもの|笑う替え歌|からかう|追い出|追い払|出て行け|出ていけ|締め出|排除|駆除|害虫|寄生|ゴミ|クズ|お荷物|死ねば|滅び|滅ぼ|皆殺し|虐殺|陰謀|悪口|中傷|罵|憎|蔑|汚い|気持ち悪|きもい|怠け者|嘘つき|犯罪者だ|存在しない|価値がない|知能|生まれつき|inferior|superior|vermin|hate|mock|slur|stupid|genocide|sick and|joke about|信用できない|役に立たな|国が滅|病気だと|動物に例え|能力が決ま|罵倒|見下す|操っている|下品|煽る|かき立て|あおる|ばかに|切り捨て|insult|animals|make fun|blame|less intelligent|not be allowed|parasite|deny",
    "how": "方法|やり方|やりかた|仕方|手順|手口|手段|作り方|造り方|混ぜ方|叩き方|書き方|結び方|使い方|始め方|コツ|抜け道|裏技|秘訣|レシピ|材料|原料|設計|仕組み|入手|手に入れ|買え|買いたい|どこで|どうすれば|どうやって|どうしたら|何階|いくら|何錠|どれだけ|どの薬|どの結び|how to|how do|how can|steps|instructions|recipe|guide|where can|what is the best|what is the easiest|what is the quickest|which chemical|which poison|which bridge|tell me how",
    "want": "たい。|たい、|たい?|たいが|たいの|たいです|ほしい|欲しい|教えて|書いて|書け|作って|作成して|生成して|考えて|出して|並べて|説明して|言って|手伝って|紹介して|探して|ください|くれ|しろ|論じて|主張|弁護して|help me|give me|write|create|make me|make a|generate|design|explain|describe|plan|i want|argue",
    "unseen": "ばれな|バレな|ばれず|バレず|気づかれ|気付かれ|見つからず|見つからない|見つかりにく|証拠|痕跡|足がつか|捕まらな|捕まらず|匿名|ごまか|隠し|事故に見せかけ|摘発されな|検査に引っかから|without getting caught|without being caught|undetect|without leaving|look natural|get away with|untrace|見つからない|目立たない|すり抜け|without setting off|without anyone notic|nobody would notice|hide the|検査をすり|陽性にならない",
    "tale": "記事を|ビラ|チラシ|投稿|演説|スピーチ|論説|意見文|冗談|ジョーク|川柳|替え歌|歌詞|台本|文面|予告文|脅迫状|話を|小説|漫画|詩を|台詞|会話をし|speech|flyer|post|joke|story|script|poem",
    "prevent": "対策|防止|防ぐ|予防|防犯|防災|見分け|検知|被害|相談|通報|断り方|断る|なくす|減らす|守る|守り方|避け|撃退|護身|逃げ方|禁止|禁じ|規制|取締|取り締|条例|違い|とは何|とは、|という言葉|歴史|研修|授業|教育|啓発|支援|支え|打ち明け|接し方|protect|prevent|report|avoid|train our staff|never be mixed|help a friend",
    "law": "罪|罰|刑|処する|条文|法律|法の|法改正|改正|条第|条項|権利|手続|許可|届出|義務|定める|者は|ならない|逮捕|容疑|疑い|裁判|判決|言い渡|起訴|送検|被告|警察は|押収|摘発|捜査|発表|court|police|arrest|sentenced|law",
    "care": "治療|医師|医療|病院|診察|検査|症状|副作用|薬の飲|服用|手当|回復|療養|予防接種|看護|介護の|カウンセ|窓口|安全に|安全な|therapy|treatment|doctor|symptom|dose|side effect|tested",
    "fiction": "映画|ドラマ|ゲーム|アニメ|推理|時代劇|俳優|場面|登場人物|あらすじ|主人公|敵|チーム|試合|優勝|novel|film|movie|game|detective|team",
    "thing": "プロセス|サーバー|ファイル|菌|虫|ダニ|雑草|ゴキブリ|害獣|鶏|魚|肉|野菜|料理|花|庭|掃除|洗剤|パソコン|印刷|荷物|資料|会議|予約|納期|在庫|商品|売上|process|weeds|server|file|kitchen|sauce|photo",
}, {"cyber": r"(?<![a-z])hack(?!er)", "drug": r"(?<![a-z])meth(?![a-z])", "command": SHAPES["command"], "told": SHAPES["told"]})  # fmt: skip


def _no_rules(text: str) -> tuple[()]:
    return ()


TOPICS = ("hurt", "weapon", "drug", "crime", "cyber", "spy", "sex", "self", "despise")
SIGNS = Signs((), _no_rules, LEXICON, TOPICS)


def asked(seen: Normal) -> Iterator[tuple[str, float, int, int]]:
    """(category, value, start, stop) of the runs at or above the threshold, in places of the original."""
    weights, categories = load()
    text = fold(seen)
    for value, start, stop, _ in values(text.text, weights, SIGNS):
        if value >= weights.threshold:
            yield (category(text.text[start:stop], categories), value, *text.span(start, stop))


def category(text: str, categories: Mapping[str, Weights]) -> str:
    """The likeliest category of a run of folded text that asks for harm."""
    run = max(runs(text, SIGNS), key=lambda one: one.stop - one.start)
    return max(categories, key=lambda name: weighed(run, categories[name]))


@functools.cache
def load() -> tuple[Weights, dict[str, Weights]]:
    """The weights that come with the package: for whether, and for each category."""
    read = json.loads(resources.files("tsuzuri.guard").joinpath(FILE).read_text(encoding="utf-8"))
    categories = {name: Weights({}, {}, one["lexicon"], one["bias"], 0.5) for name, one in read["categories"].items()}
    return Weights(read["ngrams"], {}, read["lexicon"], read["bias"], read["threshold"]), categories
