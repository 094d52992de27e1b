"""Mathematics in the style of MATH, AMC and GSM8K, with texts that repeat it and texts that only resemble it."""

BENCHMARK = {
    "letters": "How many distinct arrangements are there of the letters in the word CASCADE?",
    "quotient": "Find the quotient when $x^7 - 5$ is divided by $x + 2.$",
    "polar": r"Convert the point $(-4,0)$ in rectangular coordinates to polar coordinates.  Enter your answer in the form "
    r"$(r,\theta),$ where $r > 0$ and $0 \le \theta < 2 \pi.$",
    "arcsine": r"Compute $\arcsin \left( -\frac{\sqrt{2}}{2} \right).$  Express your answer in radians.",
    "minimum": r"Let $x,$ $y,$ and $z$ be positive real numbers such that $x + y + z = 6.$  Find the minimum value of "
    r"\[\frac{1}{x} + \frac{4}{y} + \frac{9}{z}.\]",
    "divisors": "How many positive whole-number divisors does 360 have?",
    "recursion": r"The sequence $(a_n)$ satisfies $a_1 = 3$ and $a_{n+1} = \frac{2a_n - 1}{a_n + 4}$ for all $n \ge 1.$ "
    r"Determine $a_{40}.$",
    "isosceles": r"Triangle $PQR$ has $PQ = PR = 17$ and $QR = 16.$ Point $S$ lies on side $\overline{QR}$ with $QS = 5.$ "
    r"What is the length of $\overline{PS}$?[asy]pair P, Q, R; P = (8,15); Q = (0,0); R = (16,0); "
    r'draw(P--Q--R--cycle); label("$P$", P, N); label("$Q$", Q, SW); label("$R$", R, SE);[/asy]',
    "cylinder": r"For a constant $k,$ in cylindrical coordinates $(r,\theta,z),$ which shape does the equation $r = k$ "
    "describe? (A) Line (B) Circle (C) Plane (D) Sphere (E) Cylinder (F) Cone",
    "function": r"If $g(x) = \frac{4x+1}{x-3}$, what is the value of $g(2) + g(4) + g(5)$? Express your answer as a common "
    "fraction.",
    "vectors": r"Find the projection of $\begin{pmatrix} 3 \\ -1 \\ 2 \end{pmatrix}$ onto $\begin{pmatrix} 2 \\ 2 \\ 5 "
    r"\end{pmatrix}.$",
    "sum": "What is 48 + 37?",
    "trains": "Stations $A$ and $B$ are $84$ kilometers apart. A freight train leaves $A$ for $B$ at 20 kilometers per hour, "
    "and at the same moment a railcar leaves $B$ for $A$ at 36 kilometers per hour. How many kilometers from $A$ do they "
    "pass each other?",
    "ratio": r"Positive real numbers $x$ and $y$ satisfy $y^2 = x^5$ and $(y - 2x)^2 = 9x^2.$ What is $x + y$?",
    "tiles": r"A floor of $m$ by $n$ square tiles, where $m$ and $n$ are relatively prime integers greater than 1, is "
    r"crossed by its diagonal. The diagonal passes through the interior of exactly 28 tiles, and $m + 2n = 47.$ What is "
    r"$mn$?",
    "committee": "A chess club of $9$ juniors and $7$ seniors chooses a delegation in which there are exactly two more "
    "juniors than seniors. The delegation may have as few as $2$ members. In how many ways can the club choose it?",
    "bakery": "Nadia's bakery makes 240 rolls each morning. She sells three-quarters of them before noon at $0.50 each and "
    "the rest in the afternoon at half that price. She pays $35 a day for flour and $12 for gas. How many dollars does "
    "she have left at the end of the day?",
    "fence": "A farmer wants to fence a rectangular meadow that is 60 meters long and 45 meters wide. Posts stand every 3 "
    "meters along the whole fence and cost $14 each, and the wire costs $2 a meter. How much does the fence cost in "
    "all?",
    "reading": "Tom reads 25 pages on Monday. On Tuesday he reads twice as many, and on Wednesday ten pages fewer than on "
    "Tuesday. The book has 300 pages. How many pages has he still to read after Wednesday?",
    "paint": "One can of paint covers 18 square meters. How many cans does Lucia need for four walls of 27 square meters "
    "each?",
    "aquarium": "An aquarium holds 180 liters of water. A pump fills it at 12 liters a minute, while a leak at the bottom "
    "loses 3 liters a minute. After the aquarium is full the pump is switched off. How many minutes does it take until "
    "the aquarium, once filled from empty, has lost a third of its water?",
    "zh_balls": "一个袋子里装有5个红球、3个白球和2个黑球，从中不放回地随机取出3个球，求恰好取到两个红球的概率。",
    "zh_train": "甲、乙两地相距480千米，一列快车从甲地开往乙地，每小时行驶90千米，同时一列慢车从乙地开往甲地，每小时行驶70千米，几小时后两车相遇？",
    "ja_sequence": "初項が7、公差が4の等差数列について、初項から第n項までの和が297となるような自然数nを求めなさい。",
    "ja_circle": "半径6の円に内接する正三角形ABCの面積を求め、さらにその内接円の半径を答えなさい。",
}  # fmt: skip

REPEATS = [
    # reworded
    ("letters", "In how many distinct ways can the letters of the word CASCADE be arranged?"),
    ("divisors", "Determine how many positive whole-number divisors $360$ has."),
    ("function", r"Let $g(x) = \frac{4x+1}{x-3}.$ Compute $g(2) + g(4) + g(5)$ as a common fraction."),
    ("trains", "$A$ and $B$ are stations that are $84$ kilometers apart. At the same moment a freight train leaves $A$ for "
     "$B$ at 20 kilometers per hour and a railcar leaves $B$ for $A$ at 36 kilometers per hour. How far from $A$, in "
     "kilometers, do they pass each other?"),
    ("bakery", "Each morning Nadia's bakery makes 240 rolls. Three-quarters of them are sold before noon at $0.50 each and "
     "the rest in the afternoon at half price. Every day she pays $35 for flour and $12 for gas. What does she have left "
     "at the end of the day, in dollars?"),
    ("reading", "On Monday Tom reads 25 pages, on Tuesday twice as many, and on Wednesday 10 pages fewer than on Tuesday. "
     "His book has 300 pages. How many pages are left to read after Wednesday?"),
    # written otherwise
    ("recursion", "Solve this.\n\\[ \\text{The sequence } (b_k) \\text{ satisfies } b_1 = 3 \\text{ and } b_{k+1} = "
     "\\dfrac{2 b_k - 1}{b_k + 4} \\text{ for all } k \\geq 1. \\] Determine \\( b_{40} \\)."),
    ("minimum", r"Let \(a,\) \(b,\) and \(c\) be positive real numbers such that \(a+b+c=6.\) Find the minimum value of "
     r"$$\dfrac 1a+\dfrac 4b+\dfrac 9c.$$"),
    ("isosceles", "Triangle $ABC$ has $AB=AC=17$ and $BC=16$. Point $D$ lies on side $BC$ with $BD=5$. What is the length of "
     "$AD$?"),
    ("ratio", r"Positive reals x and y satisfy y^2 = x^5 and (y - 2x)^2 = 9x^2. What is x + y?"),
    ("vectors", r"Please help me with my homework! Find the projection of $\left(\begin{array}{c} 3\\-1\\2\end{array}\right)$ "
     r"onto $\left(\begin{array}{c} 2\\2\\5\end{array}\right)$. Put the answer within \boxed{}."),
    ("sum", "what is  48+37 ?"),
    ("paint", "ONE CAN OF PAINT COVERS 18 SQUARE METERS. HOW MANY CANS DOES LUCIA NEED FOR 4 WALLS OF 27 SQUARE METERS EACH?"),
    # the first half
    ("aquarium", "An aquarium holds 180 liters of water. A pump fills it at 12 liters a minute, while a leak at the bottom "
     "loses 3 liters a minute. After"),
    ("committee", "A chess club of $9$ juniors and $7$ seniors chooses a delegation in which there are exactly two more"),
    # Chinese and Japanese
    ("zh_balls", "请解答下面的问题：一个袋子里装有５个红球、３个白球和２个黑球，从中不放回地随机取出３个球，求恰好取到２个红球的概率。请写出详细过程。"),
    ("zh_train", "甲乙两地相距480千米，一列快车从甲地开往乙地，每小时行90千米，同时一列慢车从乙地开往甲地，每小时行70千米，求几小时后两车相遇。"),
    ("ja_sequence", "次の問題を解いてください。初項が7、公差が4の等差数列について、初項から第ｎ項までの和が297となるような自然数ｎを求めよ。"),
    ("ja_circle", "半径6の円に内接する正三角形ABCの面積を求め、さらにその内接円の半径を求めなさい。"),
]  # fmt: skip

OTHERS = [
    "How many distinct arrangements are there of the letters in the word MAMMALS?",
    "How many distinct arrangements are there of the letters in the word PIANO?",
    "Find the quotient when $x^7 - 5$ is divided by $x + 3.$",
    "Find the quotient when $2x^5 + x^3 - 4$ is divided by $x^2 - 1.$",
    r"Convert the point $(0,-7)$ in rectangular coordinates to polar coordinates.  Enter your answer in the form "
    r"$(r,\theta),$ where $r > 0$ and $0 \le \theta < 2 \pi.$",
    r"Convert the point $(\sqrt{3},1)$ in rectangular coordinates to polar coordinates.  Enter your answer in the form "
    r"$(r,\theta),$ where $r > 0$ and $0 \le \theta < 2 \pi.$",
    r"Compute $\arccos \left( -\frac{\sqrt{2}}{2} \right).$  Express your answer in radians.",
    r"Compute $\arcsin \left( \frac{\sqrt{2}}{2} \right).$  Express your answer in radians.",
    r"Let $x,$ $y,$ and $z$ be positive real numbers such that $x + y + z = 6.$  Find the minimum value of "
    r"\[\frac{4}{x} + \frac{1}{y} + \frac{25}{z}.\]",
    r"Let $x,$ $y,$ and $z$ be positive real numbers such that $xyz = 6.$  Find the minimum value of $x + 4y + 9z.$",
    "How many positive whole-number divisors does 480 have?",
    r"The sequence $(a_n)$ satisfies $a_1 = 3$ and $a_{n+1} = \frac{2a_n - 1}{a_n + 4}$ for all $n \ge 1.$ Determine $a_{50}.$",
    r"Triangle $PQR$ has $PQ = PR = 17$ and $QR = 16.$ What is the area of the incircle of triangle $PQR$?[asy]pair P, Q, R; "
    r"P = (8,15); Q = (0,0); R = (16,0); draw(P--Q--R--cycle); "
    r'label("$P$", P, N); label("$Q$", Q, SW); label("$R$", R, SE);[/asy]',
    r"For a constant $k,$ in cylindrical coordinates $(r,\theta,z),$ which shape does the equation $z = k$ describe? (A) Line "
    "(B) Circle (C) Plane (D) Sphere (E) Cylinder (F) Cone",
    r"If $g(x) = \frac{4x+1}{x-3}$, what is the value of $g(2) + g(4) + g(7)$? Express your answer as a common fraction.",
    r"Find the projection of $\begin{pmatrix} 3 \\ -1 \\ 2 \end{pmatrix}$ onto $\begin{pmatrix} 2 \\ 2 \\ -5 \end{pmatrix}.$",
    "What is 48 * 37?",
    "What is 48 - 37?",
    "Stations $A$ and $B$ are $96$ kilometers apart. A freight train leaves $A$ for $B$ at 20 kilometers per hour, and at the "
    "same moment a railcar leaves $B$ for $A$ at 36 kilometers per hour. How many kilometers from $A$ do they pass each other?",
    r"Positive real numbers $x$ and $y$ satisfy $y^2 = x^5$ and $(y - 2x)^2 = 16x^2.$ What is $x + y$?",
    "A chess club of $9$ juniors and $7$ seniors chooses a delegation in which there are exactly two more seniors than "
    "juniors. The delegation may have as few as $4$ members. In how many ways can the club choose it?",
    "Nadia's bakery makes 240 rolls each morning. She sells three-quarters of them before noon at $0.50 each and the rest in "
    "the afternoon at half that price. She pays $35 a day for flour and $15 for gas. How many dollars does she have left at "
    "the end of the day?",
    "A farmer wants to fence a rectangular meadow that is 60 meters long and 45 meters wide. Hay costs $9 a bale, and a cow "
    "eats 4 bales a month. How many square meters is the meadow?",
    "Tom reads 30 pages on Monday. On Tuesday he reads twice as many, and on Wednesday five pages fewer than on Tuesday. The "
    "book has 300 pages. How many pages has he still to read after Wednesday?",
    "One can of paint covers 18 square meters. How many cans does Lucia need for three walls of 27 square meters each?",
    "一个袋子里装有6个红球、3个白球和2个黑球，从中不放回地随机取出3个球，求恰好取到两个红球的概率。",
    "一个袋子里装有5个红球、3个白球和2个黑球，从中不放回地随机取出3个球，求恰好取到一个黑球的概率。",
    "甲、乙两地相距520千米，一列快车从甲地开往乙地，每小时行驶90千米，同时一列慢车从乙地开往甲地，每小时行驶70千米，几小时后两车相遇？",
    "初項が5、公差が4の等差数列について、初項から第n項までの和が324となるような自然数nを求めなさい。",
    "半径6の円に内接する正方形ABCDの面積を求め、さらにその内接円の半径を答えなさい。",
    "Find the sum of all positive integers $n$ for which $n^2 + 31n + 289$ is a perfect square.",
    "Prove that for all real numbers $a$, $b$ and $c$ we have $a^2 + b^2 + c^2 \\ge ab + bc + ca.$",
]
