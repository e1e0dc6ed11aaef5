"""One row a claim, from the files in benchmarks/results; a file that is not there makes no row."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from tables._shared import RESULTS, Parts, machine, read, said
from tsuzuri.recipe.report import rival


def measured(language: str) -> str:
    """One row a claim, from the files in benchmarks/results; a file that is not there makes no row."""
    return claims(language, most=None)


def headlines(language: str) -> str:
    """Of each file the first, and of those that hold several things the first two; a page in front has no room for all."""
    return claims(language, most=1)


def claims(language: str, most: int | None) -> str:
    found = {name: read(name) for name in TELL if (RESULTS / name).is_file() and not (most and name in BEHIND)}
    rows = [
        (machine(record, language), *row)
        for name, record in found.items()
        for row in TELL[name](record, language)[: most and most + (name in SEVERAL)]
    ]
    head = ["| 測定項目 | 結果 | 計算機 |", "|---|---|---|"] if language == "ja" else ["| measured | result | machine |", "|---|---|---|"]
    return "\n".join(head + [f"| {what} | {result} | {where} |" for where, what, result in rows])


Rows = list[tuple[str, str]]


def tell_tiny(found: dict[str, Any], language: str) -> Rows:
    minutes = f"{found['seconds'] / 60:.1f}"
    rivals = ", ".join(f"{rival(name)} {value:.3f}" for name, value in found["rivals"].items())
    own, low, high = found["bits_per_byte"], *found["interval"]
    bits = f"**{own:.3f}** ({low:.2f} – {high:.2f}); {rivals}"
    if language == "ja":
        return [("`make tiny`、2 コア、導入の後", f"{minutes} 分"), ("検証用文章のビット毎バイト（95 % 区間）", bits)]
    return [("`make tiny`, 2 cores, after installation", f"{minutes} minutes"), ("bits per byte of held-out text (95 %)", bits)]


def tell_training(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    size = f"{found['parameters'] / 1e6:.0f} M"
    for name, pair in found["pairs"].items():
        what = f"学習の速さ、{size}、{name}：transformers 比" if ja else f"training speed, {size}, {name}: against transformers"
        speed = f"{pair['ours']['tokens_per_second']:,.0f} tok/s, MFU {pair['ours']['mfu']:.0%}"
        rows.append((what, f"× {said(pair['ratio'])}; {speed}"))
    return rows


def tell_time(found: dict[str, Any], language: str) -> Rows:
    ratio, ja = found["summary"]["ratio"], language == "ja"
    count = len(found["seeds"])
    seeds = f"種 {count} つ" if ja else f"{count} seed" + "s" * (count > 1)
    what = "同じビット毎バイトに達するまでの速さ：AdamW の基準比" if ja else "speed to the same bits per byte: against an AdamW baseline"
    reached = "未到達" if ja else "not reached"
    return [(what, f"× {said(ratio) if count > 1 else format(ratio['median'], '.2f')} ({seeds})" if ratio else reached)]


def tell_vectors(found: dict[str, Any], language: str) -> Rows:
    speed = found["speed"]
    what = "単語ベクトルの学習の速さ、skip-gram、1 スレッド：gensim 比" if language == "ja" else "training speed of word vectors, skip-gram, one thread: against gensim"  # fmt: skip
    pace = f"{speed['words_per_processor_second']:,.0f}"
    return [(what, f"× {said(speed['ratio'])}; {pace} {'語／プロセッサ秒' if language == 'ja' else 'words a processor second'}")]


def tell_neighbour(found: dict[str, Any], language: str) -> Rows:
    ours, default = found["kept"]["passive"], found["kept"]["default"]
    if language == "ja":
        return [
            (
                "ほかのプログラムが 1 コアを使うときに残る学習の速さ（全 2 コア）",
                f"× {said(ours)}; PyTorch の初期設定では × {said(default)}",
            )
        ]
    what = "training speed left while another program keeps one of two cores busy"
    return [(what, f"× {said(ours)}; as PyTorch comes × {said(default)}")]


def tell_tokenizer(found: dict[str, Any], language: str) -> Rows:
    rows = []
    for row in [*found["encode"], *found["train"]]:
        memory = f"; {'メモリ' if language == 'ja' else 'memory'} × {1 / row['memory']['median']:.2f}" if "memory" in row else ""
        name = in_japanese(row) if language == "ja" else f"{row['ours']}, {row['work']}: against {row['peer']}"
        rows.append((name, f"× {said(row['speed'])}{memory}"))
    return rows


WORK = {"encode": "トークンへの変換", "train": "作成", "one text at a time": "一件ずつ", "all texts at once": "まとめて"}
CUT = {"same cut": "（同じ切り方）", "its own cut": "（独自の切り方）"}


def in_japanese(row: dict[str, Any]) -> str:
    """A row of the tokenizers: the work and how it is given, our kind, whom it is compared with."""
    what, *how = row["work"].split(", ")
    peer, *cut = row["peer"].split(", ")
    kind = row["ours"].removeprefix("tsuzuri ")
    return f"{'、'.join([WORK[what], kind, *(WORK[part] for part in how)])}：{peer}{''.join(CUT[part] for part in cut) or ' '}比"


def tell_decode(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    size = f"{found['parameters'] / 1e6:.0f} M"
    for name, pair in found["pairs"].items():
        form, _, peer = name.partition(" against ")
        for what, word in (("decode", "生成" if ja else "generation"), ("prefill", "入力の読み込み" if ja else "reading the prompt")):
            title = f"{word}の速さ、{size}、{form}：{peer} 比" if ja else f"speed of {word}, {size}, {form}: against {peer}"
            share = f", MBU {pair[what]['mbu']:.0%}" if "mbu" in pair[what] else ""
            rows.append((title, f"× {said(pair[what]['ratio'])}; {pair[what]['tokens_per_second'][0]:,.0f} tok/s{share}"))
    return rows


def tell_serving(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for name, row in found["rows"].items():
        size, form = name.split()
        streams, prefix = row["streams"], row["prefix"]
        title = (
            f"16 件を一緒に、{size}、{form}：一件ずつの llama.cpp 比" if ja else f"16 streams, {size}, {form}: against llama.cpp one by one"
        )
        rows.append((title, f"× {said(streams['ratio'])}; {streams['tokens_per_second'][0]:,.0f} tok/s"))
        title = (
            f"9 割が既知の入力の最初の一語、{size}、{form}：未知の入力比"
            if ja
            else f"first token, 90 % known, {size}, {form}: against none known"
        )
        rows.append((title, f"× {said(prefix['ratio'])}"))
        title = (
            f"使い回しの備えの費用（何も既知でないとき）、{size}、{form}"
            if ja
            else f"cost of the prefix cache where nothing is known, {size}, {form}"
        )
        rows.append((title, f"× {said(row['prefix_cost']['ratio'])}"))
        title = (
            f"ほかのプログラムが 1 コアを使うときに残る生成の速さ、{size}、{form}"
            if ja
            else f"generation speed left beside a busy process, {size}, {form}"
        )
        rows.append((title, f"× {said(row['neighbour']['ratio'])}"))
    return rows


def tell_start(found: dict[str, Any], language: str) -> Rows:
    rows = []
    for name, row in found["rows"].items():
        size, form = name.split()
        token, torch = row["first token"]["median"], row["import torch"]["median"]
        title = f"起動から最初の一語まで、{size}、{form}" if language == "ja" else f"from nothing to the first token, {size}, {form}"
        told = (
            f"{token:.2f} 秒。うち `import torch` だけで {torch:.2f} 秒"
            if language == "ja"
            else f"{token:.2f} s, of which `import torch` alone {torch:.2f} s"
        )
        rows.append((title, told))
    return rows


def tell_step(found: dict[str, Any], language: str) -> Rows:
    """Where the time of one token goes, in shares of the sum of the parts."""
    ja, rows = language == "ja", []
    for name, row in found["rows"].items():
        size, form = name.split()
        spent = row["median"]
        parts = {kind: seconds for kind, seconds in spent.items() if kind not in ("whole", "reading")}
        total = sum(parts.values())
        attention, head = parts["attention"] / total, parts["head"] / total
        layers = 1 - attention - head - parts["embedding"] / total
        rate, reading = (row["bytes"][kind] / spent[kind] / 1e9 for kind in ("whole", "reading"))
        title = f"一語の計算の内訳、{size}、{form}" if ja else f"where the time of a token goes, {size}, {form}"
        told = (
            f"層の行列 {layers:.0%}、注意 {attention:.0%}、ヘッド {head:.0%}；毎秒 {rate:.1f} GB、読むだけなら {reading:.1f} GB"
            if ja
            else f"matrices of the layers {layers:.0%}, attention {attention:.0%}, head {head:.0%}; {rate:.1f} GB/s, reading alone {reading:.1f}"
        )
        rows.append((title, told))
    return rows


def tell_lookup(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for size, cases in found["sizes"].items():
        for case in cases:
            if case["lookup"] != LOOKUP:
                continue
            title = (
                f"入力から先読みする生成（`lookup={LOOKUP}`）、{size}、文章の {case['share']:.0%} が入力の写し：先読みなし比"
                if ja
                else f"guesses from the prompt (`lookup={LOOKUP}`), {size}, {case['share']:.0%} of the text copied: against none"
            )
            told = f"{case['accepted']} / {case['offered']} 語が的中" if ja else f"{case['accepted']} of {case['offered']} guesses right"
            rows.append((title, f"× {said(case['ratio'])}; {told}"))
    return rows


def tell_audit(found: dict[str, Any], language: str) -> Rows:
    wall, processor = (statistics.median(found[name]) for name in ("verify_seconds", "verify_processor_seconds"))
    if language == "ja":
        return [(f"監査の記録 {found['records']:,} 件の検証", f"{wall:.1f} 秒（CPU 時間 {processor:.1f} 秒）")]
    return [(f"verifying {found['records']:,} audit records", f"{wall:.1f} s ({processor:.1f} s of the processor)")]


def tell_budget(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for name, row in found["rows"].items():
        over, others = row["faults"]["micro-yen overspent"], sum(row["faults"].values())
        if ja:
            what = f"{row['paid']} 件分の予算に同時に {row['calls']:,} 件、{name}、サーバー {row['servers']} つ"
            told = f"答えたのは {row['ends']['taken']} 件、使いすぎ {over} 円、誤り {others} 件"
        else:
            what = f"{row['calls']:,} calls at once on a budget for {row['paid']}, {name}, servers: {row['servers']}"
            told = f"{row['ends']['taken']} answered, overspent by {over} yen, {others} faults"
        rows.append((what, told))
    return rows


def tell_server_start(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    names = {"new data": ("新しいデータ", "new data"), "data that is there": ("既にあるデータ", "data that is there")}
    for name, row in found["rows"].items():
        wall, processor, memory = (statistics.median(row[each]) for each in ("seconds", "processor_seconds", "megabytes"))
        which = names[name][0 if ja else 1]
        what = f"サーバーの起動、よそのモデルだけ、{which}" if ja else f"a server starts, all models elsewhere, {which}"
        told = (
            f"{wall:.2f} 秒（CPU 時間 {processor:.2f} 秒）、{memory:.0f} MB"
            if ja
            else f"{wall:.2f} s ({processor:.2f} s of the processor), {memory:.0f} MB"
        )
        rows.append((what, told))
    return rows


def tell_quantization(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for form, bits in (("q8_0", 8), ("q4_0", 4)):
        row = found["rows"][form]
        lost = row.get("native") or row["plain"]
        title = f"{bits} ビット（{form}）で失われるもの" if ja else f"what {bits} bits ({form}) cost"
        names = ("パープレキシティ", "最有力の語の一致") if ja else ("perplexity", "same most probable token")
        rows.append((title, f"{names[0]} {lost['perplexity']:+.2%}; {names[1]} {lost['agreement']:.1%}"))
    return rows


def tell_load(found: dict[str, Any], language: str) -> Rows:
    """Over HTTP, against llama-cpp-python's server: tokens a second together, the first token, and answers within the limits."""
    ja, rows = language == "ja", []
    size, limits = found["size"].upper().replace("M", " M"), found["limits"]
    trial = ""
    if found["trial"]:  # too few rounds to be a claim
        trial = f"試し（{found['rounds']} 回）；" if ja else f"a trial of {found['rounds']} rounds; "
    same = found["equality"]["same_characters"]
    agreed = (
        f"；両者の貪欲な答えの一致 {same:.0%}（乱数の重み）" if ja else f"; greedy answers of both agree in {same:.0%} (random weights)"
    )
    for clients, row in found["clients"].items():
        title = (
            f"HTTP で同時に {clients} 件、{size}、{found['form']}：llama-cpp-python のサーバー比"
            if ja
            else f"{clients} clients over HTTP, {size}, {found['form']}: against llama-cpp-python's server"
        )
        middle = row["median"]
        first, each, good = middle["ttft"], middle["tpot"], middle["goodput"]
        told = f"{trial}× {said(row['ratio']['tokens_per_second'])}; {middle['tokens_per_second'][0]:,.0f} tok/s; "
        told += (
            f"最初の一語 {1000 * first[0]:,.0f} ms（相手 {1000 * first[1]:,.0f}）、次の一語まで {1000 * each[0]:.1f} ms（{1000 * each[1]:.1f}）、"
            f"{limits['ttft_seconds']:g} 秒と {1000 * limits['tpot_seconds']:g} ms 以内の答え 毎秒 {good[0]:.2f}（{good[1]:.2f}）"
            if ja
            else f"first token {1000 * first[0]:,.0f} ms (the other {1000 * first[1]:,.0f}), next {1000 * each[0]:.1f} ms ({1000 * each[1]:.1f}), "
            f"answers within {limits['ttft_seconds']:g} s and {1000 * limits['tpot_seconds']:g} ms: {good[0]:.2f} a second ({good[1]:.2f})"
        )
        rows.append((title, told + agreed))
    return rows


def tell_restarts(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    names = {"restarts": ("負荷の下で入れ替え", "replaced under load"), "kills": ("負荷の下で強制終了", "killed under load")}
    for name, row in found["rows"].items():
        how, _, where = name.partition(", ")
        what = f"{names[how][0 if ja else 1]}{'、' if ja else ', '}{where or 'SQLite'}"
        faults = sum(row["faults"].values())
        told = (
            f"{row['times']} 回、依頼 {row['requests']:,} 件：終わりのない応答・二重の課金・払い過ぎなどの誤り {faults} 件"
            if ja
            else f"{row['times']} times, {row['requests']:,} requests: {faults} faults (streams without an end, wrong charges, overspending)"
        )
        rows.append((what, told))
    return rows


def tell_hostile(found: dict[str, Any], language: str) -> Rows:
    ja, refused = language == "ja", found["refused"]
    told = f"p50 {refused['p50_ms']:.1f} ms, p99 {refused['p99_ms']:.1f} ms"
    what = f"悪意ある依頼 {found['requests']} 種を断るまで" if ja else f"{found['requests']} hostile requests, until refused"
    rows = [(what, f"{told}、最大 {refused['most_ms']:.1f} ms" if ja else f"{told}, most {refused['most_ms']:.1f} ms")]
    for each in (found["bystander"], found["usual"]):
        calm, meanwhile = (1000 * statistics.median(each[f"{when}_seconds"]) for when in ("calm", "hostile"))
        what = (
            f"その間のほかの利用者の p99（{each['tokens']} トークンの答え）"
            if ja
            else f"p99 of a bystander meanwhile ({each['tokens']} tokens)"
        )
        rows.append((what, f"{calm:.0f} → {meanwhile:.0f} ms; × {said(each['ratio'])}"))
    what = (
        "重いスキーマを次々に準備させる間、既知の形で答えさせる人の p99"
        if ja
        else "p99 of one with a known form while slow schemas are compiled"
    )
    return [*rows, (what, f"× {said(found['forms']['ratio'])}")]


def tell_connections(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for name, row in found["milliseconds"].items():
        own, kept = (statistics.median(row[way]) for way in ("own", "kept"))
        how = {"plain": ("暗号化なし", "plain HTTP"), "TLS": ("TLS", "TLS")}[name][0 if ja else 1]
        what = (
            f"よそのモデルへの接続を保つと（{how}、同じ計算機）" if ja else f"a kept connection to a model elsewhere ({how}, one machine)"
        )
        rows.append((what, f"{own:.1f} → {kept:.1f} ms; × {said(row['ratio'])}"))
    return rows


def tell_accelerator_training(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    kinds = {"compiled": ("コンパイルあり", "compiled"), "plain": ("コンパイルなし", "not compiled")}
    for kind, row in found["rows"].items():
        size, (in_ja, in_en) = f"{found['parameters'] / 1e6:.0f} M", kinds[kind]
        what = f"学習の速さ、{size}、bfloat16、{in_ja}" if ja else f"training speed, {size}, bfloat16, {in_en}"
        rows.append((what, f"{statistics.median(row['tokens_per_second']):,.0f} tok/s, MFU {row['mfu']:.0%}"))
    return rows


def tell_accelerator_serving(found: dict[str, Any], language: str) -> Rows:
    ja, rows = language == "ja", []
    for name, pair in found["pairs"].items():
        if "failed" not in pair:
            peer = name.rpartition(" ")[2]
            size = f"{found['requests']} 件同時、{found['size']}" if ja else f"{found['requests']} requests at once, {found['size']}"
            what = f"{size}、bfloat16：transformers {peer} 比" if ja else f"{size}, bfloat16: against transformers {peer}"
            rows.append((what, f"× {said(pair['ratio'])}; {pair['tokens_per_second'][0]:,.0f} tok/s"))
    return rows


LOOKUP = 4  # guesses at once: of the numbers that were measured the one that never costs much
SEVERAL = ("tiny.json", "serving-bf16.json", "quantization.json")
BEHIND = {  # on the page of all numbers alone
    "training-110m.json", "audit.json", "budget.json", "restarts.json", "server_start.json", "hostile.json", "load.json",
    "accelerator-training.json", "accelerator-serving.json", "connections.json", "step.json", "lookup.json", "vectors.json",
    "decode-20m-fp32.json", "decode-110m-fp32.json", "decode-0.5b-fp32.json", "serving-fp32.json",
}  # fmt: skip

TELL: dict[str, Callable[[dict[str, Any], str], Rows]] = {
    "tiny.json": tell_tiny,
    "time_to_bits.json": tell_time,
    "training-20m.json": tell_training,
    "training-110m.json": tell_training,
    "neighbour.json": tell_neighbour,
    "tokenizer.json": tell_tokenizer,
    "vectors.json": tell_vectors,
    "decode-20m-bf16.json": tell_decode,
    "decode-110m-bf16.json": tell_decode,
    "decode-0.5b-bf16.json": tell_decode,
    "decode-20m-fp32.json": tell_decode,
    "decode-110m-fp32.json": tell_decode,
    "decode-0.5b-fp32.json": tell_decode,
    "step.json": tell_step,
    "serving-bf16.json": tell_serving,
    "serving-fp32.json": tell_serving,
    "accelerator-training.json": tell_accelerator_training,
    "accelerator-serving.json": tell_accelerator_serving,
    "start.json": tell_start,
    "lookup.json": tell_lookup,
    "quantization.json": tell_quantization,
    "server_start.json": tell_server_start,
    "audit.json": tell_audit,
    "budget.json": tell_budget,
    "load.json": tell_load,
    "restarts.json": tell_restarts,
    "hostile.json": tell_hostile,
    "connections.json": tell_connections,
}


PARTS: Parts = {"measured": measured, "headlines": headlines}
