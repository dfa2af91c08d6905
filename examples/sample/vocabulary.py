"""The words, names and situations that the exercises are made of."""

from __future__ import annotations

_WORDS = """
山 やま mountain / 川 かわ river / 海 うみ sea / 空 そら sky / 雨 あめ rain / 雪 ゆき snow / 風 かぜ wind
雲 くも cloud / 星 ほし star / 月 つき moon / 森 もり forest / 花 はな flower / 草 くさ grass / 木 き tree
石 いし stone / 砂 すな sand / 島 しま island / 池 いけ pond / 湖 みずうみ lake / 港 みなと harbour
橋 はし bridge / 道 みち road / 町 まち town / 村 むら village / 家 いえ house / 窓 まど window / 壁 かべ wall
屋根 やね roof / 庭 にわ garden / 机 つくえ desk / 椅子 いす chair / 箱 はこ box / 鍵 かぎ key
時計 とけい clock / 鏡 かがみ mirror / 傘 かさ umbrella / 帽子 ぼうし hat / 靴 くつ shoe / 服 ふく clothes
糸 いと thread / 針 はり needle / 紙 かみ paper / 筆 ふで brush / 鉛筆 えんぴつ pencil / 本 ほん book
手紙 てがみ letter / 辞書 じしょ dictionary / 地図 ちず map / 写真 しゃしん photograph / 新聞 しんぶん newspaper
切手 きって stamp / 切符 きっぷ ticket / 電車 でんしゃ train / 自転車 じてんしゃ bicycle / 船 ふね ship
飛行機 ひこうき aeroplane / 駅 えき station / 空港 くうこう airport / 病院 びょういん hospital
学校 がっこう school / 図書館 としょかん library / 郵便局 ゆうびんきょく post office / 公園 こうえん park
先生 せんせい teacher / 医者 いしゃ doctor / 友達 ともだち friend / 家族 かぞく family / 母 はは mother
父 ちち father / 兄 あに elder brother / 姉 あね elder sister / 弟 おとうと younger brother
妹 いもうと younger sister / 子供 こども child / 犬 いぬ dog / 猫 ねこ cat / 馬 うま horse / 牛 うし cow
羊 ひつじ sheep / 豚 ぶた pig / 鳥 とり bird / 魚 さかな fish / 虫 むし insect / 蛙 かえる frog / 亀 かめ turtle
狐 きつね fox / 狸 たぬき raccoon dog / 熊 くま bear / 鹿 しか deer / 猿 さる monkey / 兎 うさぎ rabbit
鶴 つる crane / 蜂 はち bee / 蝶 ちょう butterfly / 米 こめ rice / 麦 むぎ barley / 豆 まめ bean / 卵 たまご egg
肉 にく meat / 塩 しお salt / 砂糖 さとう sugar / 味噌 みそ miso / 醤油 しょうゆ soy sauce / 酢 す vinegar
油 あぶら oil / 水 みず water / お茶 おちゃ tea / 牛乳 ぎゅうにゅう milk / 林檎 りんご apple / 梨 なし pear
桃 もも peach / 柿 かき persimmon / 栗 くり chestnut / 葡萄 ぶどう grape / 茄子 なす aubergine
大根 だいこん radish / 胡瓜 きゅうり cucumber / 玉葱 たまねぎ onion / 人参 にんじん carrot / 茸 きのこ mushroom
朝 あさ morning / 昼 ひる noon / 夕方 ゆうがた evening / 夜 よる night / 春 はる spring / 夏 なつ summer
秋 あき autumn / 冬 ふゆ winter / 今日 きょう today / 明日 あした tomorrow / 昨日 きのう yesterday / 東 ひがし east
西 にし west / 南 みなみ south / 北 きた north / 右 みぎ right / 左 ひだり left / 上 うえ above / 下 した below
頭 あたま head / 顔 かお face / 目 め eye / 耳 みみ ear / 鼻 はな nose / 口 くち mouth / 手 て hand / 足 あし foot
指 ゆび finger / 背中 せなか back / 心 こころ heart / 声 こえ voice / 歌 うた song / 音 おと sound / 色 いろ colour
赤 あか red / 青 あお blue / 白 しろ white / 黒 くろ black / 緑 みどり green / 紫 むらさき purple / 金 きん gold
銀 ぎん silver / 鉄 てつ iron / 火 ひ fire / 光 ひかり light / 影 かげ shadow / 夢 ゆめ dream / 力 ちから strength
言葉 ことば word / 名前 なまえ name / 数 かず number / 仕事 しごと work / 旅行 りょこう journey / 祭り まつり festival
太鼓 たいこ drum / 笛 ふえ flute / 太陽 たいよう sun / 地球 ちきゅう earth / 氷 こおり ice / 雷 かみなり thunder
虹 にじ rainbow / 霧 きり fog / 嵐 あらし storm / 台風 たいふう typhoon / 地震 じしん earthquake
温泉 おんせん hot spring / 神社 じんじゃ shrine / 寺 てら temple / 城 しろ castle / 畑 はたけ field
牧場 ぼくじょう pasture
工場 こうじょう factory / 大工 だいく carpenter / 農家 のうか farmer
漁師 りょうし fisherman / 料理 りょうり cooking / 台所 だいどころ kitchen
包丁 ほうちょう kitchen knife / 茶碗 ちゃわん bowl / 皿 さら plate / 箸 はし chopsticks / 鍋 なべ pot
布団 ふとん bedding / 枕 まくら pillow / 着物 きもの kimono / 財布 さいふ purse / 切り株 きりかぶ tree stump
"""

_SPELLING = """
accommodate acquaintance afternoon against although amateur ancient answer apparent argument athlete autumn
balloon beautiful because beginning believe bicycle biscuit breakfast brilliant business calendar candle
carriage caterpillar cathedral ceiling cemetery century chocolate cinnamon colleague committee conscience
conscious courage cousin curious daughter definitely describe desperate dictionary different disappear
discipline doubt dragon embarrass emperor engine enough environment equipment especially evening exaggerate
excellent exercise existence experience familiar February foreign forest forty fountain friend furniture
gardener gauge government grammar grateful guarantee guard harbour height hospital hurricane imagine
immediately independent instrument interrupt island jewellery journey judgement kitchen knight knowledge
ladder language laughter leisure library lightning listen literature machine marvellous measure medicine
message millennium miniature mischievous mountain muscle mystery necessary neighbour nephew noticeable
occasion occurred onion orchestra original parallel parliament particular passenger pattern perhaps
physical pigeon pleasant possession potato privilege pronunciation pyramid question queue receive
recommend remember restaurant rhythm sandwich scissors secretary separate sergeant shoulder signature
silence sincerely soldier special squirrel station stomach strawberry strength success sugar surprise
telescope temperature terrible theatre thorough thought through thunder tomorrow tongue treasure twelfth
umbrella until vegetable vehicle village volcano weather Wednesday weird whistle window wonderful writing
"""


def _parse(text: str) -> tuple[tuple[str, str, str], ...]:
    entries = (entry.split(None, 2) for line in text.strip().splitlines() for entry in line.split(" / "))
    return tuple((entry[0], entry[1], entry[2].strip()) for entry in entries)


WORDS = _parse(_WORDS)
"""A word in kanji, its reading, and what it means."""

SPELLING = tuple(_SPELLING.split())
"""Words that are often misspelled, and some that are not."""

NAMES_EN = [
    "Ada",
    "Ben",
    "Clara",
    "Dev",
    "Elsie",
    "Farid",
    "Grace",
    "Hugo",
    "Imani",
    "Jonas",
    "Kirsty",
    "Leo",
    "Maya",
    "Nils",
    "Olga",
    "Priya",
    "Ruth",
    "Sam",
]
NAMES_JA = [
    "佐藤",
    "鈴木",
    "高橋",
    "田中",
    "渡辺",
    "伊藤",
    "山本",
    "中村",
    "小林",
    "加藤",
    "吉田",
    "山田",
    "松本",
    "井上",
    "木村",
    "清水",
    "森田",
    "石川",
]

GOODS_EN = (
    ("pencil", "pencils"),
    ("notebook", "notebooks"),
    ("orange", "oranges"),
    ("stamp", "stamps"),
    ("candle", "candles"),
    ("cup of tea", "cups of tea"),
    ("bread roll", "bread rolls"),
    ("ticket", "tickets"),
    ("postcard", "postcards"),
    ("tulip", "tulips"),
    ("battery", "batteries"),
    ("jar of honey", "jars of honey"),
)
THINGS_EN = [
    "apples",
    "marbles",
    "shells",
    "stamps",
    "buttons",
    "chairs",
    "letters",
    "eggs",
    "walnuts",
    "coins",
    "plates",
    "tickets",
    "books",
    "pebbles",
    "acorns",
    "lanterns",
    "bricks",
    "tiles",
]

COUNTED_JA = (
    ("鉛筆", "本"),
    ("傘", "本"),
    ("大根", "本"),
    ("猫", "匹"),
    ("金魚", "匹"),
    ("卵", "個"),
    ("りんご", "個"),
    ("みかん", "個"),
    ("石", "個"),
    ("切手", "枚"),
    ("皿", "枚"),
    ("紙", "枚"),
    ("本", "冊"),
    ("ノート", "冊"),
    ("自転車", "台"),
    ("車", "台"),
    ("生徒", "人"),
    ("客", "人"),
    ("お茶", "杯"),
    ("靴下", "足"),
    ("靴", "足"),
    ("牛", "頭"),
    ("馬", "頭"),
    ("家", "軒"),
    ("手紙", "通"),
    ("上着", "着"),
    ("歌", "曲"),
)
"""A thing and the counter for it."""
GOODS_JA = (
    ("鉛筆", "本"),
    ("ノート", "冊"),
    ("みかん", "個"),
    ("たまご", "個"),
    ("絵葉書", "枚"),
    ("画用紙", "枚"),
    ("コロッケ", "個"),
    ("大根", "本"),
    ("風鈴", "個"),
    ("入場券", "枚"),
)
