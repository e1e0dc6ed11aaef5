"""取り寄せの部屋：リポジトリの名前から、検めたディレクトリへ。 / Hub room: a repository's name -> a verified directory.

Enters: `owner/name@revision` and the address of a Hugging Face hub. Leaves: a directory of one commit, every hash checked.
Open first: `pull.py` (partial files, resuming, the directory), then `listing.py` (what is there, what is taken) and `wire.py` (HTTP).
It knows no model. The verb `pull` alone may call it: nothing else in the package fetches anything.
"""
