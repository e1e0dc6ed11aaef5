"""道の部屋 (+)：一つのファイルが一つの入口。 / Routes room (+): one file, one way in.

Each says METHOD, PATHS, POLICY (the scopes of which one is enough, or `OPEN`), and `answer(call) -> Answer`; SHAPE and SAMPLES
where its errors have another form than OpenAI's, or where it can be asked without a body that has fields.
"""
