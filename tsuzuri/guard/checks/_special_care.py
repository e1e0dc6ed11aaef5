"""Words of `special_care.py`: illnesses, disabilities, crimes, creeds, peoples, values of a health check; and who it may be said of.

In: nothing. Out: parts of regular expressions over text read by `normal.plain`. It decides nothing: each of them stands in harmless text too.
"""

from __future__ import annotations

ILL = (
    r"(?:うつ病|鬱病|躁うつ病|双極性障害|統合失調症|適応障害|パニック障害|不安障害|摂食障害|拒食症|過食症|PTSD|不眠症|てんかん|認知症|アルツハイマー病?|パーキンソン病|多発性硬化症|"
    r"糖尿病|高血圧症?|低血圧症|高脂血症|脂質異常症|痛風|リウマチ|膠原病|喘息|ぜんそく|肺炎|結核|肺気腫|心筋梗塞|狭心症|心不全|不整脈|脳梗塞|脳出血|脳卒中|くも膜下出血|動脈瘤|"
    r"胃潰瘍|胃炎|十二指腸潰瘍|潰瘍性大腸炎|クローン病|肝炎|B型肝炎|C型肝炎|肝硬変|脂肪肝|腎不全|腎臓病|胆石|膵炎|甲状腺機能(?:亢進|低下)症|バセドウ病|"
    r"(?:[胃肺肝膵腎舌]|大腸|直腸|乳|子宮|子宮頸|卵巣|前立腺|食道|膀胱|甲状腺|咽頭|皮膚)?(?:がん|癌)|白血病|悪性リンパ腫|腫瘍|子宮内膜症|子宮筋腫|不妊症|流産|"
    r"HIV|エイズ|梅毒|淋病|クラミジア|性感染症|ヘルニア|椎間板ヘルニア|骨粗鬆症|アトピー性皮膚炎|乾癬|緑内障|白内障|網膜剥離|難聴|メニエール病|依存症|アルコール依存症|薬物依存症?|ギャンブル依存症?|"
    r"(?:(?![年月週日間前後半今先])[一-鿿ァ-ヺー]){1,8}(?:(?<!仮)(?<!疾)病(?!院|棟|気|人|床|歴|状|名)|(?<!後遺)症(?!状|例)|炎(?!天|上)|症候群|頭痛|神経痛|腫瘍|麻痺|湿疹|疱疹|ジストロフィー)|貧血|脳腫瘍|筋ジストロフィー|ALS|難病|指定難病|インフルエンザ|新型コロナ|コロナ)"
)
DISABLED = (
    r"(?:(?:身体|精神|視覚|聴覚|知的|発達|内部|肢体|言語|学習|高次脳機能|自閉スペクトラム|注意欠如多動|聴力|上肢|下肢)障害(?:者(?:保健福祉)?手帳)?|身体障害者手帳|精神障害者保健福祉手帳|障害者手帳|療育手帳|"
    r"障害(?:等級)?[1-7一二三四五六七]級|障害年金|自閉症|アスペルガー症候群|ADHD|ダウン症|全盲|弱視|ろう者|聾|失明|人工透析|義足|ペースメーカー)"
)
CRIME = r"(?:前科|前歴|逮捕歴|犯罪歴|犯歴|服役|執行猶予|保護観察|少年院|刑務所|仮釈放|出所|有罪(?:判決)?|懲役[^。\n、]{0,8}|罰金刑|起訴猶予|不起訴(?:処分)?|起訴|逮捕|書類送検|送検|補導)"
VICTIM = r"(?:(?:性犯罪|性暴力|性的暴行|強盗|詐欺|DV|家庭内暴力|ストーカー|虐待|暴行|傷害|恐喝|痴漢|盗撮|窃盗|空き巣|誘拐|強制わいせつ|ひき逃げ|犯罪)(?:の|に)?(?:被害者?))"
RACE = r"(?:在日(?:韓国人|朝鮮人|コリアン|中国人|外国人)?(?:[二三]世)?|アイヌ(?:民族|の血|の出)?|琉球民族|クルド人|ロマ|黒人|白人|ユダヤ人|ハーフ|混血|(?:韓国|朝鮮|中国|ブラジル|ペルー|フィリピン|ベトナム|ロシア)系(?:の?[二三]世)?|日系(?:[二三]世|ブラジル人|ペルー人)?)"
CREED = (
    r"(?:(?:キリスト|カトリック|プロテスタント|イスラム|仏|ヒンドゥー|ユダヤ|神|天理|新興宗)教?(?:の)?(?:教徒|信者|信徒)|キリスト教徒|仏教徒|イスラム教徒|ムスリム|クリスチャン|ユダヤ教徒|ヒンドゥー教徒|カトリック|プロテスタント|"
    r"(?:エホバの証人|創価学会|天理教|真如苑|統一教会|ものみの塔)(?:の?(?:信者|会員|信徒))?|無神論者|(?:共産|自民|自由民主|社民|社会民主|立憲民主|公明|保守|革新)?党(?:の)?(?:党員|支持者)|(?:共産|自由民主|社会民主)主義者|信仰している宗教|改宗|洗礼)"
)
STATUS = r"(?:(?:被差別)?部落(?:の)?(?:出身者?|の出)|同和地区(?:の)?(?:出身者?|の出)|非嫡出子|婚外子)"
CHECK = (
    r"(?:(?:血圧|最高血圧|最低血圧|血糖値?|空腹時血糖|HbA1c|ヘモグロビンA1c|コレステロール|LDL(?:コレステロール)?|HDL(?:コレステロール)?|中性脂肪|γ-?GTP|AST|ALT|尿酸値?|尿蛋白|BMI|腹囲|クレアチニン|PSA|体脂肪率|視力|聴力)"
    r"(?:[はがもの、:]|の値は|値は|\s){0,3}\s?(?:[0-9][0-9./]{0,8}(?:\s?(?:mg/d[lL]|mmHg|%|U/L|cm|kg))?(?![0-9])|高め|高い|低め|基準値?(?:より|を)[^。\n、]{0,6}|陽性|異常)|要(?:精密検査|再検査|治療|経過観察)|(?:判定|総合判定)\s?[:は]?\s?[B-EＢ-Ｅ][12]?(?![A-Za-z])|"
    r"(?:心電図|胸部X線|便潜血|尿検査|眼底|ストレスチェック|肝機能|腎機能)[^。\n、]{0,6}(?:異常(?!なし|は)|陽性|高ストレス|所見(?!なし)))"
)
CARE = (
    r"(?:(?:抗うつ薬|睡眠薬|睡眠導入剤|降圧剤|インスリン|抗がん剤|抗精神病薬|向精神薬|ステロイド|ピル|抗不安薬|血糖を下げる薬|血圧の薬|精神安定剤|痛み止め)"
    r"|(?:精神科|心療内科|産婦人科|婦人科|泌尿器科|腫瘍内科|透析|循環器科|脳神経外科|不妊外来|もの忘れ外来)"
    r"|(?:心臓|胃|脳|乳房|子宮|大腸|肺|腎臓|ヘルニア|がん)の(?:手術|移植|摘出)|人工妊娠中絶|中絶|帝王切開)"
)
ILL_EN = (
    r"(?:(?:breast |lung |colon |prostate |skin |stomach )?cancer|diabetes|depression|bipolar disorder|schizophrenia|epilepsy|asthma|hypertension|high blood pressure|HIV|hepatitis [BC]|leukaemia|leukemia|"
    r"dementia|Alzheimer's(?: disease)?|Parkinson's(?: disease)?|multiple sclerosis|anorexia|a (?:stroke|heart attack|miscarriage)|tuberculosis|panic disorder|PTSD)"
)
DISABLED_EN = r"(?:autism|autistic|ADHD|dyslexia|Down syndrome|blind|deaf|paraplegic|a disability (?:card|pension)|an? (?:intellectual|physical|learning) disability)"
CRIME_EN = r"(?:a criminal record|convicted of [a-z ]{3,24}|in prison|on parole|on probation|arrested for [a-z ]{3,24}|served time)"
CREED_EN = r"(?:a (?:devout |practising )?(?:Muslim|Christian|Catholic|Buddhist|Hindu|Jehovah's Witness|communist)|an atheist|Jewish)"
VICTIM_EN = r"(?:a victim of [a-z ]{3,24}|raped|sexually assaulted|abused by [a-z ]{3,24})"
WHO = (
    r"(?:私(?!たち|達|立|ども|の(?:会社|職場|町))|わたし(?!たち)|わたくし|僕(?!たち|ら)|ぼく|俺(?!たち|ら)|自分|本人|当人|彼女?(?!ら|たち)|父|母|兄|姉|弟|妹|夫|妻|旦那|主人|家内|息子|娘|祖父|祖母|義父|義母|叔父|叔母|おじ|おば|いとこ|甥|姪|孫|両親|友人|友達|恋人|"
    r"同僚|上司|部下|先輩|後輩|(?<!一般)社員|従業員|職員|応募者|候補者|求職者|申込者|契約者|入居者|利用者|患者|受診者|被保険者|対象者|相談者|依頼人|生徒|園児|隣人|大家|店長|部長|課長|係長|担当者|当該社員|被告人?|容疑者|"
    r"[一-鿿々ァ-ヺー]{1,6}(?:さん|様|氏|くん|君|ちゃん|先生|部長|課長|係長|主任)|[A-Z]さん)"
)
WHO_EN = r"(?:I|He|She|he|she|My (?:\w+ ?){1,2}|my (?:\w+ ?){1,2}|(?:Mr|Ms|Mrs|Dr)\.? ?[A-Z]\w+|[A-Z]\w+ [A-Z]\w+|The (?:applicant|patient|employee|candidate|tenant)|the (?:applicant|patient|employee|candidate|tenant))"

# each of what is said, and each label of a form, holds one of these: cheap to look for, since none begins with a letter that is everywhere
NEEDED = (
    r"病|症|炎|癌|腫|ん(?<=がん)|ん(?<=てんかん)|アルツハイマー|血圧|痛風|リウマチ|喘息|く(?<=ぜんそく)|結核|梗塞|不全|不整脈|卒中|出血|動脈瘤|潰瘍|硬変|脂肪|胆石|流産|エイズ|梅毒|クラミジア|ヘルニア|乾癬|"
    r"内障|剥離|難聴|貧血|ジストロフィー|インフル|コロナ|頭痛|神経痛|麻痺|湿疹|疱疹|障害|療育|自閉|アスペルガー|ダウン|全盲|弱視|う(?<=ろう)|聾|失明|透析|義足|ペースメーカー|前科|前歴|逮捕|犯罪|犯歴|服役|執行猶予|"
    r"保護観察|少年院|刑務所|仮釈放|出所|有罪|懲役|罰金|起訴|送検|補導|被害|在日|アイヌ|琉球|クルド|ロマ|黒人|白人|ユダヤ|ハーフ|混血|系(?<=[鮮国ルーンムア]系)|日系|信者|信徒|教徒|会員|ムスリム|クリスチャン|カトリック|"
    r"プロテスタント|エホバ|創価|天理|真如苑|統一教会|塔|無神論|党|主義者|信仰|宗教|改宗|洗礼|部落|同和|嫡出|婚外子|血糖|コレステロール|尿|腹囲|クレアチニン|視力|聴力|要[精再治経]|判定|心電図|胸部|便潜血|眼底|ストレス|"
    r"肝機能|腎機能|薬|剤|インスリン|ステロイド|ピル|痛み止め|睡眠|精神|心療|婦人科|泌尿器|腫瘍|循環器|外来|手術|移植|摘出|中絶|帝王|既往|診断|主訴|服用|処方|手帳|賞罰|宗派|政党|信条|人種|民族|健診|検査|ヘモグロビン",
    r"HIV|PTSD|ADHD|ALS|HbA1c|LDL|HDL|GTP|AST|ALT|BMI|PSA|cancer|diabetes|depression|bipolar|schizo|epilepsy|asthma|hypertension|blood pressure|hepatitis|leuk|dementia|Alzheimer|Parkinson|sclerosis|anorexia|"
    r"stroke|heart attack|miscarriage|tuberculosis|panic|autis|dyslexia|Down syn|blind|deaf|paraplegic|disability|criminal|convicted|prison|parole|probation|arrested|served time|Muslim|Christian|Catholic|Buddhist|Hindu|"
    r"Jehovah|communist|atheist|Jewish|victim|raped|assaulted|abused",
)
