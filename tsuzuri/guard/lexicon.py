"""Words that mean much the same, by what they mean in an order to a model: classes of words, and which of them stand together.

In: folded text (`normal.folded`). Out: where words of each class stand; of some classes, what is weighed: each alone, and in twos. 「前置きを
貼り付けて」 and 「冒頭の文を見せて」 share no words and hardly an n-gram, but both are `inner` and `show`. What a class weighs is learned
(`train.py`); every word here stands in harmless text too. It decides nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from itertools import combinations


class Lexicon:
    """Classes of words, each the alternatives of a regular expression, as people write them: they are folded as the text is folded."""

    def __init__(self, classes: Mapping[str, str]) -> None:
        self.names = tuple(classes)
        self._classes = classes
        self._compiled: tuple[re.Pattern[str], ...] | None = None

    def words(self, name: str) -> str:
        """A class as it was given."""
        return self._classes[name]

    def places(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """(class, where a word of it begins in a folded text), in their order."""
        if self._compiled is None:  # nothing is compiled at import
            self._compiled = tuple(re.compile(words.translate(_KANA)) for words in self._classes.values())
        for name, pattern in zip(self.names, self._compiled, strict=True):
            yield name, [match.start() for match in pattern.finditer(text)]


_KANA = {code: chr(code - 0x60) for code in range(0x30A1, 0x30F7)}
TWOS = 0.5  # the value of two classes together: beside the value 1 of each it learns more slowly, since there are many


@functools.lru_cache(4096)
def features(classes: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """(name, value) of these classes, and of the twos of them."""
    return (*((name, 1.0) for name in classes), *((f"{a}+{b}", TWOS) for a, b in combinations(classes, 2)))


INJECTION = Lexicon(
    {
        "rule": "指示|命令|ルール|制約|設定|禁止|禁じ|ガイドライン|プロンプト|規則|制限|前提|方針|規約|規制|規範|掟|おきて|決まり|きまり|取り決め|約束|ポリシー|注意|指図|言いつけ|縛り|しばり|縛られ|作法|心得|条件|憲法|倫理|道徳|良心|フィルタ|検閲|審査|ブレーキ|歯止め|安全装置|安全モジュール|ガード|リミッター|首輪|足かせ|手かせ|鎖|枠|台本|シナリオ|申し付け|申し送り|言われた|言い含め|教え込|仕込|命じ|禁則|禁句|遠慮|守秘|口止め|線引き|instruction|direction|rules?\\b|guideline|constraint|restriction|polic(?:y|ies)|boundar|guardrail|safety|filter|leash|limit|protocol|moderation|ethic|morals?\\b|safeguard|censor|disclaimer|caveat|warning|refus|directive|directions|what you were told|told to",
        "undo": "無視|忘れ|わすれ|破棄|放棄|取り消|無効|なかったこと|捨て|すて|ほか(?:し|す)|ほったらか|上書き|書き換え|差し替え|解除|解いて|解け|解か|停止|止め|やめ|終わり|おわり|おしまい|終了|失効|撤廃|廃止|外し|外さ|外す|外れ|外せ|はずし|オフ|切り|切って|切っ|消し|消去|消え|リセット|初期化|クリア|白紙|ゼロ|空っぽ|まっさら|チャラ|抜きに|なしで|なしに|ナシ|いらない|要らない|不要|用済み|読み捨て|読まなかった|従わ|守らな|守る必要|聞かなく|聞くな|気にせず|気にしな|気にすん|知らんぷり|スルー|すっ飛ばし|飛ばし|越え|破って|破れ|はみ出|逆らう|ひっくり返|脇に|置いといて|度外視|脱ぎ|脱いで|降りて|生まれ変わ|解き放|自由|ignore|disregard|forget|discard|override|bypass|drop|wipe|erase|delete|skip|removed?|disabled?|lifted|off\\b(?<![a-z]off)|=false|neglect|overlook|abandon|suspend|deactivat|turn off|turned off|switch(?:ed)? off|lifted|void|scrap|throw away|stop following|no longer|cancel|reset|replace|supersed|overwrit|unlearn|break free|ignoring|revoke|expired|set aside|pay no attention|none",
        "before": "これまで|今まで|ここまで|以前|前の|前に|先の|先に|先ほど|さきほど|さっき|上記|上の|上に|これより上|最初|初め|はじめ|冒頭|先頭|初期|事前|元の|もとの|従前|従来|一番古い|会話の前|会話が始まる|渡され|与えられ|受け取|言われ|読まされ|読み込|入力済み|課せられ|課され|previous|prior|earlier|above|preced|original|initial|before|so far|until now|up to now|up to this point|at the (?:top|start|beginning)|first message|from the very",
        "inner": "システムプロンプト|システムメッセージ|システムの|内部|内側|裏|隠し|隠れ|隠され|秘密|機密|秘匿|非公開|封印|伏せ|前置き|前文|前書き|注意書き|設定文|設定の文|説明文|命令文|取扱説明|設計|中身|原文|全文|文面|文章|メモ|初期値|言ってはいけ|口外|内々|本当の|ほんまの|本性|system prompt|system message|hidden|secret|confidential|preamble|preface|developer|initiali[sz]ed|configur|prompt|password|passphrase|pass ?code|access code|code word|secret|setup|set up|context window|internal|behind the scenes|private|classified|forbidden|not allowed",
        "show": "見せ|みせ|表示|出力|書き出|書き起こ|書き写|書き取|書いて|写し|写して|貼|コピー|コピペ|引用|復唱|読み上げ|読み聞かせ|読んで|暗唱|唱え|つぶや|歌って|教え|おしえ|ご教示|打ち明け|明か|白状|暴露|バラ|ばら(?:し|せ)|吐|さらけ|晒|漏ら|開示|公開|提示|提出|示し|示せ|展開|並べ|報告|答え合わせ|丸写し|印字|印刷|翻訳|訳し|直して|変換|置き換え|しゃべ|喋|話して|話せ|言って|言え|白日|お示し|print|repeat|reveal|show|tell me|output|dump|paste|recite|quote|read out|whisper|disclose|spell|write|give me|share|display|list|provide|expose|leak|transcri|translat|summari[sz]|rephrase|convert|complete|describe|encode|remind|hint|rhyme|letters?\\b|characters?\\b|what (?:is|are|was|were|does|did)",
        "exact": "一字一句|そのまま|そのまんま|原文|全文|全部|ぜんぶ|すべて|全て|丸ごと|まるごと|まるっと|余すところ|余さず|残らず|漏らさず|省かず|省略|要約でなく|要約なし|要約せず|一文ずつ|一行ずつ|一語ずつ|一つずつ|冒頭から|最初から|逐語|句読点|verbatim|word for word|exact|in full|without trimming|everything|entire|whole|complete text|exact (?:text|wording|words)|full text|one by one|code block|nothing (?:left out|changed)",
        "you": "あなた|きみ|君(?![津臨主])|お前|おまえ|あんた|貴方|貴殿|貴システム|you(?:r|rself)?\\b(?<![a-z]you)(?<![a-z]your)",
        "machine": "ai(?<![a-z]ai)(?![a-z])|アシスタント|助手|ボット|ロボット|モデル|人工知能|知能エージェント|エージェント|機械は|機械へ|プログラムに|プログラムへ|処理系|要約係|秘書ai|llms?\\b|chatgpt|copilot|agents?\\b|assistant|models?\\b|bots?\\b|robot|machine|automated|summari[sz]er|crawler|grader|screening system",
        "reader": "読んでいる|読んだ|読む|読み込んだ|読み取|処理する|処理した|処理中|処理担当|要約する|まとめる担当|解析|巡回|取り込む|受け取った|扱う|開いた|点検する|集計する|採点を行う|仕分ける|代筆する|reading|process(?:ing|es)|parses?|summari[sz](?:ing|es?)|reviewer|reads? (?:this|my)|opens? this|if you are an? (?:ai|llm|model|assistant)|(?:to|for|dear|attention),? (?:any |the |all )?(?:ai|llm|model|assistant|agent|bot)",
        "role": "なりき|なりすま|のふり|ふりを|ふりで|役を|役は|役で|役名|演じ|芝居|舞台|キャラ|人格|モードを|モードに|モード(?:起動|オン|で|終わり)|として振る舞|として話|として答|として動|という設定|ごっこ|ロールプレイ|生まれ変わ|転生|催眠|夢の中|世界線|双子|怪物|悪魔|魔女|仮面|別人|悪役|無法者|囚人|主人公|ゲームマスター|せりふ|代わりに歌|名前は「|pretend|act as|roleplay|play the role|speak as|persona|character|developer mode|maintenance mode|jailb|act as|act like|speak as|respond as|play an?|simulate|imagine|twin|grand(?:father|mother)|script|stage|opposite|evil|unfiltered|sentient",
        "suppose": "もし|仮に|仮定|仮の話|例えば|たとえば|想像|架空|思考実験|小説|物語|世界では|夢|演習|実験|if you were|if you could|in that world|we are on stage|this is a game|let's play|hypothet|imagine|suppose",
        "limitless": "制限なし|制限のない|無制限|制約ゼロ|何でも|なんでも|どんな(?:頼み|質問|注文|要望|情報|話題)|いかなる|好きに|自由に|遠慮なく|本音|ありのまま|建前|率直|忌憚|ぶっちゃけ|断らず|断らない|断ること|断りの|断り文句|断り書き|拒否|拒ま|拒む|拒絶|逆らわ|逆らえ|絶対服従|絶対に従|服従|従順|必ず応じ|引き受け|言うことだけ|言うことを聞|かなえ|無修正|無検閲|生の答え|言いなり|ご主人|uncensored|unrestricted|never refuse|never say no|no restrictions|no limits|don't decline|comply|obey|anything|without (?:warnings?|disclaimers?|restrictions?|limits?|checks?|morals?|hesitat)|every request|all requests|whatever i|no (?:warnings?|limits?|rules?|morals?)|never (?:apologi|decline)|do not (?:decline|refuse|apologi)|nothing is forbidden|allowed",
        "boss": "管理者|開発者|開発元|開発チーム|開発担当|運営|社長|警察|裁判所|内閣|本部|本社|上司|責任者|監査|検査官|品質保証|技術部|エンジニア|ルートユーザー|製造元|生みの親|作った(?:会社|人)|教官|上位|上級|特権|権限|認証コード|承認番号|許可された|maintainer|administrator|admin\\b|root\\b|sudo|developer|operator|authori[sz]e|red team|audit|permission|my boss|emergency|verified|approved|maintenance|debugg|i work for|security test|for research",
        "block": "【(?:システム|運営|管理|審査|自動更新|重要|緊急)|《(?:管理|緊急)|<システム|<設定|<admin|<system|\\[\\[|\\[(?:システム|system|内部|設定|優先)|■+ ?(?:システム|運用|更新)|#{2,}|begin system|end system|</?(?:user|system|conversation|instruction)|system:|システム:|assistant:|アシスタント:|```|policy|refuse|ここまで|新しい(?:指示|命令|ルール|前置き|注意|任務|設定)|new (?:task|role|instruction)",
        "secretly": "こっそり|そっと|内緒|ないしょ|バレない|バレず|ばれな|気づかれ|悟られ|知らせず|知らせるな|伏せて|報告は(?:要|不要|いら)|報告せず|黙って|だまって|黙っと|言わずに|言わんと|言わない|言わなくて|秘密裏|内々|ひそかに|勝手に|人の目|人間には|表示しない|表示され|見えない|見せない|読み飛ば|飛ばしてください|連絡は不要|だれにも|誰にも|quietly|silent|without telling|do not tell|don't tell|hidden from|do not (?:mention|report|show|reveal this)|without (?:comment|showing|notify|inform)|keep it between|nobody will|unnotic|invisible|covert|secretly",
        "noask": "確認(?:は|を|の|の窓|画面|せず|なし|不要|skip)|承認(?:は|を|画面|済み)|許可(?:は|を|なし|なく)|聞かなくて|聞かずに|尋ねず|問わず|いちいち|省略|省いて|断りなく|断りは|了承済み|同意済み|済んでい|あるものとみなし|代わりに「はい|勝手|ただちに|即時に|今すぐ|無条件|without asking|without confirm|skip the|confirm nothing|already agreed|no confirmation|without (?:check|review)|pre-?approved|automatically|immediately|confirm nothing|no time to",
        "data": "名簿|履歴|メール|受信箱|パスワード|暗証|合言葉|鍵|トークン|クッキー|個人情報|個人の記録|社外秘|住所録|住所|口座|残高|連絡先|給与|契約書|書類|予定表|写真|環境変数|資料|顧客|取引先|会話の中身|売上|データ|記録|発言|電話番号|inbox|mailbox|password|tokens?\\b|api ?key|credential|session|address book|contacts?\\b|conversation|files?\\b|cookies?\\b|home address|invoice|drafts?\\b|customer (?:table|data|list)|environment variables?|calendar|secret key|license key",
        "send": "送っ|送り|送る|送信|送付|送れ|転送|転載|アップロード|投稿|post|書き込|流し|渡せ|渡し|渡す|横流し|回す|回して|回せ|持ち出|外に出|外へ|外部|写してください|移して|移し|投げて|埋め込|混ぜ|付けて|付け加|くっつけ|足して|載せ|つないだ|宛先|宛て|あてに|https?:|リンク|番地|アドレス|開いて|踏んで|アクセス|forward|send|upload|append|attach|mail (?:the|it)|open the link|wire|visit|submit|export|insert|embed|click|load it|post it|put it in|query string|reply (?:with|to)|share (?:the|it|your)|email",
        "act": "実行|呼び出|呼んで|動かし|動かす|走らせ|起動|削除|全削除|消去|振り込|送金|払い戻|支払|購入|買って|変えなさい|変更|切り替え|承諾|承認し|合格|満点|最高点|推薦|推奨|印を|押し|押せ|通し|通して|加えて|加える|記せ|記す|報告せよ|移れ|出せ|出しなさい|_(?<=[a-z]{2}_)[a-z]{2,12}|tool_call|rm -|シェル|関数|ツール|道具|コマンド|transfer|delete|execute|call (?<![a-z]call )|run (?<![a-z]run )|approve|grant|disable|purchase|move the",
        "swap": "代わりに|かわりに|その代わり|優先|より重く|以後|今後|今から|今日から|これから|ここから|以降|この先|次から|この文だけ|私の(?:言葉|話|言うこと|方針|頼み)|instead|from now on|from here on|new task|only follow|new instructions?|new (?:job|rule|polic)|real task|onwards?|next (?:answer|request|message)|just this once",
        "encode": "base64|base32|rot13|ローマ字|モールス|点字|暗号|平文|逆から|逆順|逆さ|反転|頭文字|折句|文字ずつ|一文字|ひらがなだけ|emoji|絵文字|encode|decode|reverse|backwards|cipher|ずらし|morse|acrostic|first letter|each letter|hex\\b|unicode|復号|暗号化|しりとり|なぞなぞ",
        "command": "(?:せよ|しろ|なさい|すること|こと|ください|くれ|てくれる|くれへん|ちょうだい|てほしい|てな|てえな|たまえ|べし|ように|ておけ|おいて|とけ|やれ|てよ|てね|ては|てみて|て|や|せ|れ|け|え|ろ)(?=[。!?」\\n]|$)|願います|お願い|いただけ|くださいませ",
        "told": "(?:ました|でした|ています|ている|された|した|だった|います|です|ます|だ|る|た|ません)(?=[。!?」\\n]|$)",
    }
)
