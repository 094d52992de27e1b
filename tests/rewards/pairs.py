"""Labelled pairs (gold, answer), each by hand: what a mathematician marking papers accepts and refuses."""

from __future__ import annotations

EQUAL: list[tuple[str, str]] = [
    # integers: separators, signs, spellings
    ("5", "5"), ("1234", "1,234"), ("1234567", "1,234,567"), ("10000", r"10{,}000"), ("10000", r"10,\!000"),
    ("12345", "12 345"), ("12345", r"12\,345"), ("5", "+5"), ("-7", "−7"), ("5", "5.0"), ("1", "1.0"),
    ("0", "-0"), ("5", "05"), ("72", "72."), ("72", "$72$"), ("72", r"\(72\)"), ("5", r"{5}"), ("5", "(5)"),
    ("27.0", "27"), ("100,200", "100200"), ("3,4", "3, 4"),
    # powers, scientific notation
    ("1024", "2^{10}"), ("8", "2^3"), ("1500", r"1.5 \times 10^3"), ("1500", r"1.5\cdot 10^{3}"),
    ("0.0012", r"1.2 \times 10^{-3}"), ("1500", "1.5e3"), ("2^{2010}", "2^{2010}"), ("x^{10}", "x^{4} x^{6}"),
    # fractions, decimals, mixed numbers
    (r"\frac{1}{2}", "0.5"), (r"\frac12", "1/2"), (r"\frac{1}{2}", r"\dfrac{1}{2}"),
    (r"\frac{1}{2}", r"\tfrac12"), (r"\frac{14}{3}", "14/3"), (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"-\frac{1}{2}", r"\frac{1}{-2}"), (r"\frac{2}{4}", r"\frac{1}{2}"), (r"\frac{3}{2}", r"1\frac{1}{2}"),
    (r"\frac{3}{2}", "1 1/2"), (r"-\frac{3}{2}", r"-1\frac12"), ("0.25", ".25"), ("0.125", r"\frac18"),
    (r"\frac{1}{3}", r"0.\overline{3}"), (r"\frac{7}{2}", "3.5"), (r"\frac{\pi}{2}", r"\frac{1}{2}\pi"),
    (r"\frac{1}{2}", "½"),
    # roots
    (r"\sqrt{2}", r"\sqrt2"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt{2}", "2^{1/2}"), (r"\sqrt{2}", "2^{0.5}"), (r"2\sqrt{3}", r"\sqrt{12}"), (r"\sqrt[3]{8}", "2"),
    (r"3\sqrt{2}+1", r"1+3\sqrt 2"), (r"\sqrt{2}", "√2"),
    # percent
    (r"12.5\%", "12.5"), ("12.5", r"12.5\%"), (r"12.5\%", "0.125"), (r"50\%", r"\frac{1}{2}"),
    ("50", "50 percent"), (r"25\%", "25%"), ("25", r"25\text{ percent}"),
    # units and currency
    ("9", "9 eggs"), ("9", r"9\text{ eggs}"), (r"9\text{ eggs}", "9"), (r"5\text{ m}", "5 m"), ("5", "5 cm"),
    (r"5\text{ cm}^2", "5"), (r"5\text{ cm}^2", r"5\text{ square centimeters}"), ("18", r"\$18"),
    ("18", "$18"), (r"\$18", "18 dollars"), (r"\$1,250.50", "1250.5"), ("60", "60 mph"),
    (r"60\text{ miles per hour}", "60"), (r"10\sqrt{3}\text{ cm}", r"10\sqrt{3}"),
    (r"16\pi", r"16\pi \text{ square inches}"), ("5", "5cm"), ("9", "9 duck eggs"),
    (r"9\text{ duck eggs}", "9 eggs"), (r"15\mbox{ cm}^2", "15"), ("7", r"7 \text{ days}"),
    # degrees
    ("30", r"30^\circ"), (r"30^{\circ}", "30"), (r"30^\circ", "30°"), ("30", "30 degrees"),
    (r"\frac{45}{2}", r"22.5^\circ"), (r"45^\circ", r"45\text{ degrees}"),
    # intervals, inequalities, unions
    ("[2,5)", "[2, 5)"), ("[2,5)", r"2\le x<5"), ("[2,5)", r"2 \leq x < 5"), (r"(-\infty, 3)", "x<3"),
    (r"(3,\infty)", r"3 < x"), (r"[3,\infty)", r"x \geq 3"), ("[2,5)", r"\left[2,5\right)"),
    ("[2,5)", r"x\in[2,5)"), (r"(0,\frac{1}{2}]", "(0, 0.5]"), (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"),
    (r"(0,1]\cup(1,2)", "(0,2)"), (r"x\in(1,2)\cup(3,4)", r"(1,2) \cup (3,4)"), (r"5 > x \ge 2", r"2\le x<5"),
    (r"(-\infty,\infty)", r"\mathbb{R}"), (r"\mathbb{R}", r"\text{all real numbers}"),
    (r"(-\infty,2)\cup(2,\infty)", r"x \ne 2"), (r"[0,+\infty)", r"[0,\infty)"),
    # sets, lists, plus-minus
    (r"\{1,2,3\}", r"\{3, 1, 2\}"), ("1,2", "2,1"), ("1,2", "1 and 2"), ("1,2,3", "1, 2, and 3"),
    (r"\{1,2\}", "2, 1"), ("1, 2", r"x=1 \text{ or } x=2"), (r"\pm 2", "2, -2"), (r"-2, 2", r"\pm 2"),
    (r"3\pm\sqrt{2}", r"3-\sqrt2, 3+\sqrt2"), (r"x=\pm 2", r"\pm 2"), (r"\emptyset", r"\varnothing"),
    (r"\{5\}", "5"), (r"\{\frac12, 3\}", r"\{3, 0.5\}"), ("-1, 1", "1;-1"),
    # tuples, vectors, matrices
    ("(1,2)", "(1, 2)"), (r"(3,\frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"),
    ("(0.5, 2)", r"(\frac12,2)"), ("(1,2)", "(x,y)=(1,2)"), ("(1,2,3)", r"\langle 1,2,3\rangle"),
    ("(1,2,3)", "1, 2, 3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    (r"\begin{pmatrix}-1\\6\end{pmatrix}", "(-1,6)"),
    (r"\begin{pmatrix}1/2&0\\0&1\end{pmatrix}", r"\begin{pmatrix}0.5&0\\0&1\end{pmatrix}"),
    (r"(x,y) = (1,2)", "x=1, y=2"),
    # expressions
    ("x+1", "1+x"), ("2x+2", "2(x+1)"), ("(x+1)^2", "x^2+2x+1"), ("p - q", "-q+p"), (r"\frac{x}{2}", "0.5x"),
    (r"\sin^2 x", r"1-\cos^2 x"), ("xy", "yx"), (r"e^{2x}", r"(e^x)^2"), (r"\log_2 8", "3"),
    (r"\binom{5}{2}", "10"), ("5!", "120"), (r"2^{n+1}", r"2\cdot 2^n"), (r"|x-1|", r"|1-x|"),
    (r"3x^2y-7", r"-7+3yx^2"), (r"\pi r^2", r"r^2\pi"), (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
    ("6 - 5i", "-5i+6"), (r"\tan 45^\circ", r"\tan 45^\circ"),
    # equations
    ("5", "x=5"), ("x=5", "5"), ("y=2x+1", "y = 1+2x"), ("y=2x+1", "2x+1"), ("x^2+y^2=1", "x^2+y^2-1=0"),
    ("5", "2+3=5"), ("5", "5 = x"), ("30", r"\angle ABC = 30^\circ"), ("x=1,y=2", "y=2, x=1"),
    (r"f(x)=x^2", "x^2"), (r"\frac12", r"P(A)=\frac{1}{2}"), (r"\sqrt{2}", r"\sqrt{2}\approx 1.414"),
    # choices and words
    ("C", "C."), ("C", r"\text{C}"), ("C", "(C)"), ("C", r"\textbf{(C)}"), ("C", "(C) 42"),
    (r"\text{(C)}", "C"), (r"\text{even}", "even"), ("even", "Even."), (r"\text{Evelyn}", "Evelyn"),
    ("no solution", r"\text{No solution}"), ("the ellipse", "ellipse"), (r"\text{red, blue}", "blue, red"),
    (r"\text{Monday}", r"\textbf{Monday}"),
    # bases
    ("1210_3", "1210_{3}"), ("2516_8", "2516"), (r"101_2", r"101_{\text{2}}"), ("101_2", "101 (base 2)"),
    ("5", "101_2"), ("3:2", "3:2"),
    # complex numbers, written names
    ("2i", "(1+i)^2"), ("-1", "i^2"), ("S = \\{1,2\\}", "2, 1"), ("Odd", "odd"), ("yes", r"\text{Yes}"),
    # once more, harder: integers, powers, scientific notation
    ("1000000", "1 000 000"), ("1000000", r"1\,000\,000"), ("-1234", "-1,234"), ("-1234", "−1,234"),
    ("42", r"\text{42}"), ("42", r"\mathbf{42}"), ("42", "+42.00"), ("7", r"\boxed{7}"),
    (r"\frac{1}{2}", r"\boxed{\frac{1}{2}}"),
    (r"\frac12", r"\mathbf{\frac{1}{2}}"), ("4210_{5}", r"\boxed{4210_{5}}"), ("1/2", r"\text{$\frac{1}{2}$}"),
    ("1000", "10^3"),
    ("0.000001", "10^{-6}"), ("6.02e23", r"6.02 \times 10^{23}"), ("6.02e23", "6.02E+23"),
    ("299792458", r"2.99792458 \times 10^8"), ("0", "0.0"), ("0", r"\frac{0}{5}"), ("-5", "(-5)"),
    ("1e3", "1000"), ("4^{3}", "64"), ("2^{-3}", "0.125"), ("(-2)^3", "-8"), ("-2^2", "-4"), ("(-2)^2", "4"),
    ("3.14", r"\frac{157}{50}"), ("1.50", r"\frac{3}{2}"), (r"2\times 3", "6"), (r"2^{10}-1", "1023"),
    (r"2\cdot 3^5", "486"), (r"\frac{10!}{8!}", "90"),
    # fractions
    (r"-\frac{7}{3}", r"-2\frac{1}{3}"), (r"\frac{-7}{-3}", "7/3"), (r"-\frac{-7}{3}", r"\frac{7}{3}"),
    ("7/3", r"2 \frac13"), ("7/3", "2 1/3"), (r"\frac{1}{6}", r"0.1\overline{6}"),
    (r"\frac{1}{7}", r"0.\overline{142857}"), ("1", r"0.\overline{9}"), (r"\frac{3}{4}", "{3}/{4}"),
    (r"\frac{3}{4}", r"\frac 3 4"), (r"\frac{3}{4}", r"\frac{3}4"), (r"\frac34", r"\left(\frac{3}{4}\right)"),
    (r"\frac{3}{4}", r"3 \div 4"), (r"\frac{3}{4}", r"{3 \over 4}"), (r"\frac{1}{2}", "2^{-1}"),
    (r"\frac{100}{3}", r"33\frac{1}{3}"), (r"\frac{1000}{7}", r"\frac{1,000}{7}"), ("-1/3", "1/-3"),
    (r"\frac{x}{3}", "x/3"), (r"\frac{\frac{1}{2}}{3}", r"\frac{1}{6}"),
    # roots
    (r"\sqrt{50}", r"5\sqrt{2}"), (r"\frac{2}{\sqrt{3}}", r"\frac{2\sqrt{3}}{3}"),
    (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"), (r"\sqrt{\frac{1}{2}}", r"\frac{\sqrt 2}{2}"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), ("2^{3/2}", r"2\sqrt{2}"), (r"\sqrt{4}", "2"),
    (r"\sqrt[4]{81}", "3"), (r"4\sqrt[3]{3}", r"4\cdot 3^{1/3}"),
    (r"\frac{1+\sqrt5}{2}", r"\frac{1}{2}+\frac{\sqrt{5}}{2}"), (r"\frac{3\sqrt{3}}{4}", r"\frac34\sqrt3"),
    ("5√2", r"5\sqrt{2}"), (r"\sqrt{6}+\sqrt{2}", r"\sqrt2+\sqrt6"), (r"\frac{1}{\sqrt{2}-1}", r"\sqrt{2}+1"),
    # percent
    (r"75\%", "75%"), (r"75\%", "0.75"), (r"\frac{3}{4}", r"75\%"), (r"33\frac{1}{3}\%", r"\frac{100}{3}\%"),
    ("20", r"20\,\%"), ("20%", r"20\text{ percent}"), (r"0.5\%", "0.005"),
    # units, currency, degrees
    ("12", r"12 \text{ inches}"), ("12", r"12\,\mathrm{cm}"), (r"12\text{ cm}", r"12\ \mathrm{cm}"),
    (r"12\text{ cm}^3", r"12\text{ cubic centimeters}"), ("150", r"\$150.00"), (r"\$150", "150 USD"),
    ("5000", r"\$5,000"), ("3.5", "3.5 hours"), ("10", r"10 \text{ km/h}"),
    (r"10\text{ m/s}", r"10 \frac{\text{m}}{\text{s}}"), (r"9.8\text{ m/s}^2", r"9.8\ \mathrm{m/s^2}"),
    ("25", r"25 \text{ sq. ft.}"), (r"6\text{ feet}", r"6\text{ ft}"), ("36", r"36\text{ units}^2"),
    ("36", r"36\text{ square units}"), ("8", "8 people"), ("1", "1 hour"), ("£20", "20"),
    (r"5\text{ minutes}", "5 min"), ("€5", "5 euros"), ("-3", r"-3^\circ \text{C}"), ("100", r"100^\circ\text{F}"),
    (r"\frac{1}{2}\text{ cup}", "0.5"), ("5 kg", "5 kilograms"), ("17", r"17\ \text{dollars}"),
    (r"60^\circ", r"60\degree"), ("0", r"0^\circ"), (r"37.5^\circ", r"\left(\frac{75}{2}\right)^\circ"),
    # intervals, inequalities
    ("(1,5]", r"1 < x \le 5"), ("(1,5]", r"1<x\leqslant5"), (r"(-\infty,0]", r"x \le 0"),
    (r"(-\infty,0]", r"0 \ge x"), (r"[0,\infty)", r"x\geq0"), ("(1,5]", r"\left(1, 5\right]"),
    ("(-1,1)", "|x|<1"), (r"(-\infty,-1)\cup(1,\infty)", r"x<-1 \text{ or } x>1"), ("[-1,1]", r"-1\le y\le 1"),
    (r"(-\infty,1)\cup(1,\infty)", r"\mathbb{R}\setminus\{1\}"), (r"x\ge 2", r"[2,\infty)"), ("x>2", "2<x"),
    (r"[1,2]\cup[3,4]", r"[3,4] \cup [1,2]"), ("(0,1)", "0<x<1"), (r"(2,\infty)", r"\{x \mid x > 2\}"),
    (r"[\frac13, 3]", "[1/3,3]"), ("[0, 1]", r"\left[0,\;1\right]"), ("0 < a < 1", "0<a<1"),
    (r"a \le 5", r"a \leq 5"),
    # sets, lists
    (r"\{1,2\}", r"\left\{ 2,1 \right\}"), (r"\{-1,0,1\}", r"0, \pm 1"),
    (r"1 \pm \sqrt{3}", r"1+\sqrt{3}, 1-\sqrt{3}"), (r"\{1\pm\sqrt{3}\}", r"1\pm\sqrt3"),
    (r"\pm\frac{1}{2}", r"\frac12, -\frac12"), (r"x = 2 \text{ or } x = -3", "-3, 2"), ("2, 3", "x=2, x=3"),
    (r"\{(1,2),(3,4)\}", "(3,4),(1,2)"), ("(1,2),(3,4)", "(3,4), (1,2)"), (r"\emptyset", r"\{\}"),
    ("1,2,3", r"\{1,2,3\}"), ("2,4,6,8", "2, 4, 6, and 8"), ("1000, 2000", "1,000, 2,000"),
    (r"\frac{-1\pm\sqrt{5}}{2}", r"\frac{-1+\sqrt5}{2}, \frac{-1-\sqrt5}{2}"), ("-3, 5", r"-3 \text{ and } 5"),
    # tuples, vectors, matrices
    ("(2, 3)", "x = 2, y = 3"), (r"(\sqrt{2}, 1)", "(2^{1/2}, 1)"), ("(0,0)", "(0.0, 0)"),
    (r"\left(\frac{1}{2},\frac{3}{2}\right)", "(0.5,1.5)"), ("(a,b)=(3,4)", "(3,4)"),
    (r"\begin{pmatrix}1\\2\\3\end{pmatrix}", r"\begin{bmatrix}1\\2\\3\end{bmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\langle 1, 2\rangle"),
    (r"\begin{pmatrix} \frac12 & 0 \end{pmatrix}", r"\begin{pmatrix} 0.5 & 0 \end{pmatrix}"),
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\left[\begin{array}{cc}1&0\\0&1\end{array}\right]"),
    # expressions
    ("a^2-b^2", "(a-b)(a+b)"), (r"2\sin x\cos x", r"\sin 2x"), (r"\ln 8", r"3\ln 2"), (r"\log_{10} 100", "2"),
    (r"\frac{1}{x}+\frac{1}{y}", r"\frac{x+y}{xy}"), ("x(x+1)(x+2)", "x^3+3x^2+2x"), (r"e^{i\pi}", "-1"),
    ("3-4i", "-4i+3"), (r"\frac{1}{i}", "-i"), (r"\cos\frac{\pi}{3}", r"\frac12"), ("2^{2n}", "4^n"),
    ("(n+1)!", r"(n+1)\cdot n!"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), ("x^{1/2}", r"\sqrt{x}"),
    ("-(x-1)", "1-x"), ("x^{12}", "x^12"),
    ("10^{12}", "10^12"), (r"4\pi", "4π"), (r"\frac{4}{3}\pi", r"\frac{4\pi}{3}"), (r"10\pi", r"\pi \cdot 10"),
    ("t^2-4t+7", "(t-2)^2+3"), (r"\lfloor 3.7\rfloor", "3"), ("|{-3}|", "3"), (r"\frac{a}{b+c}", "a/(b+c)"),
    (r"\alpha+\beta", r"\beta+\alpha"), ("a_1+a_2", "a_2+a_1"), ("x_1", "x_{1}"),
    (r"\frac{\ln 2}{\ln 3}", r"\log_3 2"), (r"e^{i\pi/2}", "i"),
    # equations
    (r"y = -\frac{1}{2}x + 3", "y = 3 - 0.5x"), ("y=2x+1", "2x - y + 1 = 0"),
    ("x^2+(y-1)^2=4", "x^2 + y^2 - 2y - 3 = 0"), ("n=7", "7"), (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"),
    ("f(x)=2x", "f(x) = x+x"), ("4", "a+b=4"), ("3x+4y=5", "5=3x+4y"), ("k = -2", "-2"), ("12", r"3 \cdot 4 = 12"),
    ("5", "|AB| = 5"), (r"\frac{3}{4}", r"\sin\theta = \frac{3}{4}"),
    # choices, words
    ("B", "B)"), ("B", r"\text{(B)}"), ("B", "B: 12"), ("B", r"\mathrm{B}"), ("(B)", "B"), ("B", "Option B"),
    ("Friday", r"\text{Friday}"), ("yes", "Yes."), ("True", r"\text{true}"), ("blue and red", "red and blue"),
    ("hyperbola", r"\text{a hyperbola}"), ("Alice", r"\mathrm{Alice}"), ("two lines", r"\text{Two lines}"),
    ("no", "No"), ("infinitely many", r"\text{infinitely many}"), ("8:30", r"8{:}30"), ("3:4", "3 : 4"),
    ("June 20", r"\text{June }20"), ("10:45 a.m.", r"10\text{:}45\text{ a.m.}"), ("5:00 PM", r"5:00\text{ p.m.}"),
    # bases
    ("1101_2", "1101_{2}"), ("AB_{16}", r"\text{AB}_{16}"), ("77_8", "77 (base 8)"),
    ("77_8", r"77_{\text{eight}}"), ("77_8", "77_8."), ("63", "77_8"),
]  # fmt: skip

UNEQUAL: list[tuple[str, str]] = [
    # numbers
    ("5", "6"), ("5", "-5"), ("1234", "1,235"), ("1234", "12,34"), ("5", "50"), ("12", "1 2"), ("5", "5x"),
    ("0", "1"), ("1,234", "234, 1"), ("72", "7.2"), ("1500", r"1.5 \times 10^4"), ("1024", "2^{11}"),
    ("5", ""), ("5", r"\frac{5}{0}"),
    # rounded
    (r"\frac{1}{3}", "0.333333333"), (r"\frac{1}{3}", "0.33"), (r"\sqrt{2}", "1.41421356237"),
    (r"\pi", "3.14159265"), (r"\frac{2}{3}", "0.667"), (r"\frac{22}{7}", r"\pi"),
    (r"\sqrt{2}", "1.41421356237309504880"), ("e", "2.718281828"), (r"\sqrt{2}+1", "2.41421356237309504880"),
    (r"\sqrt{2}\approx 1.414", "1.414"),
    # fractions and roots
    (r"\frac{1}{2}", r"\frac{2}{1}"), (r"\frac{3}{2}", r"\frac{13}{2}"), (r"1\frac12", r"\frac{1}{2}"),
    (r"\sqrt{2}", r"\sqrt{3}"), (r"1-\sqrt{2}", r"1+\sqrt{3}"), (r"2\sqrt{3}", "2"),
    (r"\sqrt{2}", r"-\sqrt{2}"), (r"\sqrt[3]{2}", r"\sqrt{2}"),
    (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{3}"),
    # percent, units, degrees
    ("12.5", "0.125"), (r"12.5\%", "1.25"), (r"5\text{ m}", r"5\text{ km}"), ("5 m", "5 km"), (r"\$5", "€5"),
    (r"5\text{ cm}", r"5\text{ cm}^2"), (r"5\text{ apples}", r"5\text{ oranges}"), (r"\$5", "5 cents"),
    ("9", "8 eggs"), ("30", r"31^\circ"), (r"5\text{ hours}", r"5\text{ minutes}"),
    (r"90\text{ mph}", r"90\text{ km/h}"), ("5", "5 x"), ("5m", "5km"), (r"25\%", "0.25 cm"),
    # intervals
    ("[2,5)", "[2,5]"), ("[2,5)", "(2,5)"), ("[2,5)", r"2<x<5"), ("[2,5)", r"2 \le x \le 5"),
    (r"(-\infty,3)", r"x\le 3"), (r"(3,\infty)", "x<3"), (r"(1,2)\cup(3,4)", "(1,2)"),
    (r"(1,2)\cup(3,4)", r"(1,2)\cup(3,5)"), ("[2,5)", "2,5"), (r"x > 3", "y > 3"), (r"[1,2]", r"\{1,2\}"),
    # lists that contain the gold, or lack a part
    ("5", "5, 6"), ("5", "4 or 5"), ("5", r"\{5,6\}"), ("1,2", "1,2,3"), ("1,2,3", "1,2"),
    (r"\{1,2\}", r"\{1,3\}"), (r"\pm 2", "2"), ("2", r"\pm 2"), (r"3\pm\sqrt{2}", r"3+\sqrt{2}"),
    ("5", "1,2,3,4,5"), ("C", "A, B, C"), ("C", "A or C"), ("5", "x=5, x=6"), ("1,1,2", "1,2,2"),
    ("12", r"\boxed{12}, 13"),
    # tuples and matrices
    ("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), ("(1,2)", r"\{1,2\}"), ("(4,10)", "10, 4"), ("(1,2)", "[1,2]"),
    ("-2,1", "(-2,1)"), ("(-2,1)", "-2, 1"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2&3&4\end{pmatrix}"),
    (r"\begin{pmatrix}-1\\6\end{pmatrix}", "(6,-1)"),
    # expressions
    ("x+1", "x-1"), ("x+1", "y+1"), ("x^2", "x^3"), ("2x", "x^2"), ("p-q", "q-p"), (r"\sin x", r"\cos x"),
    ("xy", "x+y"), ("P", "p"), (r"e^{2x}", r"e^{x^2}"), (r"\frac{x}{y}", r"\frac{y}{x}"),
    (r"(x+1)^2", "x^2+1"), ("6-5i", "6+5i"), (r"\frac{n(n+1)}{2}", r"\frac{n(n-1)}{2}"),
    # equations
    ("x=5", "y=5"), ("5", "x=6"), ("y=2x+1", "y=2x-1"), ("x=1,y=2", "x=2,y=1"), ("1", "9=1"),
    ("x^2+y^2=1", "1"), ("x^2+y^2=1", "x^2-y^2=1"), ("5", "2+2=5"), ("x=5", "x>5"),
    # choices and words
    ("C", "D"), ("C", "(D) 42"), ("A", "a dog"), ("even", "odd"), ("even", "neve"), ("Monday", "Tuesday"),
    ("ABC", "ACB"), ("no solution", "one solution"), ("no", "on"), ("5", "5 xy"), ("5", "5xy^2"),
    ("7", "7 and nothing else"), ("5", "five hundred"), ("even", "5"),
    # bases
    ("1210_3", "1210_4"), ("2516_8", "2517"), ("12", "12_8"), ("101_2", "101_3"),
    # malformed
    ("5", "{5"), (r"\frac{1}{2}", r"\frac{1}{2"), (r"\frac{1}{2}", r"\frac{1}{}"), ("5", "$"),
    ("5", r"\text{}"), ("5", "?"), ("5", r"\boxed{}"), ("5", r"5 \frac"), ("5", "5 6"), ("5", "5^"),
    ("5", "((((5"), ("3:2", "2:3"),
    # once more, harder: numbers
    ("1234567", "1,234,576"), ("1234", "1.234"), ("1000", "1,00"), ("1000", "10,00"), ("1000", "1e4"), ("10", "1 0"),
    ("5", "+-5"), ("0.1", "0.10000001"), ("1000000", "10^5"), ("6.02e23", r"6.02\times 10^{22}"),
    ("6.02e23", r"6.02 \times 10^{-23}"), ("1", "0.999999999999999999999"), ("0", "0.0000000000000000001"),
    ("2^{100}", "1267650600228229401496703205377"), ("2^{100}", "1.2676506e30"), ("10!", "3628801"), ("4", "2^3"),
    ("-4", "(-2)^2"), ("4", "-2^2"), ("12345", "12, 345"), ("123", "1,2,3"), ("23", "2,3"), ("2,3", "2.3"),
    # rounded
    (r"\frac{2}{7}", "0.2857142857142857"), (r"\sqrt{3}", "1.7320508075688772935274463415"),
    (r"\frac{\pi}{4}", "0.785398163397448"), (r"\ln 2", "0.69314718056"), ("e^2", "7.38905609893065"),
    (r"\pi", "3.14"), (r"\pi", r"\frac{355}{113}"), (r"10\pi", "31.4159265358979323846"),
    (r"\sqrt{2}+\sqrt{3}", "3.14626436994197"), (r"\frac{1+\sqrt5}{2}", "1.6180339887498948482"),
    (r"\sin 1", "0.8414709848"), (r"33\frac13\%", r"33.33\%"), (r"33\frac13\%", r"33\%"), ("0.333", r"\frac13"),
    (r"\frac{1}{6}", "0.16667"), (r"\cos 20^\circ", "0.9396926207859084"), (r"\sqrt{2}", r"\frac{577}{408}"),
    # fractions, roots
    (r"2\frac13", r"\frac{2}{3}"), (r"2\frac{1}{3}", "21/3"), (r"-2\frac13", r"-\frac{5}{3}"),
    (r"\frac{7}{3}", r"-2\frac13"), (r"\frac{1}{2}", r"\frac{1}{2}x"), (r"\frac{1}{3}", r"0.3\overline{4}"),
    (r"\frac{12}{34}", r"\frac{1}{2}\frac{3}{4}"), (r"\frac{1}{23}", r"\frac{1}{2}3"), (r"\frac12", "12"),
    ("1/2", "1.2"), (r"\frac{1}{2}", "1, 2"), (r"\frac{5}{0}", "0"), (r"\frac{0}{0}", "1"),
    (r"\sqrt{50}", r"2\sqrt{5}"), (r"\sqrt[3]{16}", r"\sqrt{16}"), (r"\sqrt{a}", r"\sqrt{b}"),
    (r"\sqrt{2}", r"\sqrt{-2}"), (r"\sqrt{2+\sqrt{3}}", r"\sqrt{2}+\sqrt{3}"), (r"5\sqrt{2}", "5"),
    (r"\sqrt{x+1}", r"\sqrt{x}+1"), (r"\frac{\sqrt{2}}{2}", r"\sqrt{2}"), ("3^{1/3}", "3^{1/2}"),
    (r"2\sqrt{3}", r"3\sqrt{2}"), (r"1+\sqrt{2}", r"1\pm\sqrt{2}"),
    # percent, units, degrees
    (r"75\%", "7.5"), (r"75\%", r"0.75\%"), ("0.75", r"0.75\%"), (r"\frac{3}{4}", r"7.5\%"), ("75", "0.75"),
    (r"150\%", "0.15"), (r"12\text{ cm}", r"12\text{ mm}"), (r"12\text{ cm}^2", r"12\text{ cm}^3"),
    (r"12\text{ m}^2", r"12\text{ m}"), (r"\$5", "£5"), ("5 kg", "5 g"), ("5 kg", "5 lb"),
    (r"10\text{ m/s}", r"10\text{ km/h}"), (r"10\text{ m/s}", r"10\text{ m}"), (r"3\text{ hours}", r"3\text{ days}"),
    (r"30^\circ", r"30\text{ radians}"), (r"5\text{ boys}", r"5\text{ girls}"),
    (r"5\text{ cm}", r"5\text{ cm, }6\text{ cm}"),
    ("5", r"5\text{ cm or }6\text{ cm}"), (r"20\%", r"\$20"), (r"1\text{ mile}", r"1\text{ minute}"),
    (r"30^\circ", r"30\%"), (r"5\text{ ft}", r"5\text{ in}"), (r"100^\circ\text{F}", r"100^\circ\text{C}"),
    # intervals, inequalities
    ("(1,5]", "(1,5)"), ("(1,5]", "[1,5]"), ("(1,5]", "[1,5)"), ("(1,5]", r"1\le x\le 5"), ("(1,5]", "1<x<5"),
    ("(1,5]", r"\{1,5\}"), (r"[0,\infty)", r"(0,\infty)"), (r"[0,\infty)", "x>0"), (r"x\ge 2", "x>2"),
    (r"x\ge 2", r"x\le 2"), (r"[1,2]\cup[3,4]", "[1,4]"), (r"[1,2]\cup[3,4]", r"[1,2]\cap[3,4]"),
    (r"[1,2]\cup[3,4]", "[1,2),[3,4]"), (r"(-\infty,1)\cup(1,\infty)", r"\mathbb{R}"), ("(0,1)", r"(0,1)\cup(1,2)"),
    ("(1,2)", r"(1,2)\cup\{3\}"), (r"x<-1 \text{ or } x>1", "-1<x<1"), (r"(0,\pi)", "(0,3.14159)"), ("(0,1)", "(1,0)"),
    (r"a \le 5", "a < 5"), ("0<x<1", "0<x<2"), ("[2,5)", "[2;5]"), (r"(-\infty, 3)", r"(-\infty, 3]"), ("x>3", "3"),
    ("3", "x>3"), ("3", "x<3"), (r"x \ne 2", "2"), (r"x \ne 2", "x=2"), ("(-1,1)", "|x|>1"), ("(-1,1)", r"|x|\le 1"),
    # sets, lists that contain the gold
    (r"\{1,2\}", r"\{1,2,2,3\}"), (r"\{1,2\}", "1"), ("1", r"\{1,2\}"), (r"\{1,2\}", "(1,2)"), (r"\{1,2\}", "[1,2]"),
    (r"0, \pm 1", r"\pm 1"), (r"1\pm\sqrt{3}", r"1+\sqrt3"), (r"1\pm\sqrt{3}", r"-1\pm\sqrt{3}"), ("-3", r"\pm 3"),
    (r"\pm 3", r"\pm 4"), ("7", "5, 6, 7, 8"), ("7", "7, 7"), ("7", "6 or 7"), ("7", r"7 \text{ or } 8"),
    ("7", "between 6 and 8"), ("7", "7 and 8"), ("7", "x=7 or x=8"), ("7", "1 2 3 4 5 6 7"), ("7", "7;8"),
    ("7", "7/8"), ("7", "(7,8)"), (r"\emptyset", "0"), (r"\emptyset", r"\{0\}"), (r"\emptyset", r"\{\emptyset\}"),
    ("0", r"\emptyset"), (r"\{(1,2),(3,4)\}", r"\{(2,1),(3,4)\}"), ("(1,2),(3,4)", "(1,2)"),
    ("(1,2),(3,4)", "1,2,3,4"), ("1000, 2000", "1000,2001"), ("7", r"7 \quad 8"), ("7", r"7 \\ 8"), ("7", "7 | 8"),
    ("7", "6, 7"), ("7", "7 (or 8)"), ("7", "7? 8?"), ("7", r"\frac{7}{1}, 8"), ("7", r"7 \to 8"), ("7", "7 \u2192 8"),
    ("7", r"6 \text{ if even, } 7 \text{ if odd}"), ("7", "7 - 8"), ("7", "7 8"), ("7", "7\n8"), ("7", r"7 \wedge 8"),
    # tuples, matrices
    ("(1,-2,3)", "(1,2,3)"), ("(1,-2,3)", "(1,-2)"), ("(2,3)", "x=3, y=2"), ("(2,3)", "2"), ("(2,3)", "5"),
    ("(2,3)", r"\frac{2}{3}"), ("(2,3)", "(2,3),(3,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\\0\end{pmatrix}"),
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{pmatrix}1&0\\0&-1\end{pmatrix}"),
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", "1"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "1,2,3,4"),
    ("(0,0)", "0"), (r"(3,\frac{\pi}{2})", "(3,90)"), (r"(3,\frac{\pi}{2})", "(3,1.5707963)"),
    # expressions
    ("a^2-b^2", "(a-b)^2"), (r"2\sin x\cos x", r"\sin x^2"), (r"\ln 8", r"8\ln 2"),
    (r"\frac{1}{x+y}", r"\frac{1}{x}+\frac{1}{y}"), ("x^3+3x^2+2x", "x(x+1)(x+3)"), ("3-4i", "4-3i"), ("3-4i", "-1"),
    ("n!", "n"), ("(n+1)!", "n!+1"), (r"\binom{n}{2}", r"\binom{n}{3}"), (r"\frac{n}{2}", r"\binom{n}{2}"),
    ("2^{2n}", "2^n"), ("4^n", "4n"), (r"4\pi", "4"), (r"4\pi", r"\pi^4"), (r"\frac43\pi r^3", r"\frac43\pi r^2"),
    ("x_1", "x_2"), ("x_1", "x"), ("2x", "2"), ("ab", "a,b"), ("a+b", "ab"), ("x", "X"), (r"\alpha", "a"),
    ("x^{-1}", "-x"), (r"\log_2 x", r"\log_3 x"), (r"\sin^{-1} x", r"\frac{1}{\sin x}"), ("|x|", "x"),
    (r"\sqrt{x^2}", "x"), ("a/b/c", "a/(b/c)"), ("x-y-z", "x-(y-z)"), (r"\frac{x^2}{x}", "x^2"), ("e^x", "x^e"),
    ("2^{n+1}", "2^n+1"), (r"\frac{n(n+1)(2n+1)}{6}", r"\frac{n(n+1)(2n-1)}{6}"), ("1+i", "1-i"), ("i", "-i"),
    ("2i", "2"), ("i", "1"),
    # equations
    ("y=2x+1", "y=2x"), ("y=2x+1", "x=2y+1"), ("y=2x+1", "2x+y+1=0"), ("x^2+y^2=4", "x^2+y^2=2"), ("x=5", "x=-5"),
    ("x=5", "5x"), ("n=7", "m=7"), ("7", "n=8"), ("7", "7=8"), ("12", "3+4=12"), ("12", r"3\cdot 4 = 13"),
    ("x=2", "x=2, x=3"), ("y=x^2", "y=x^3"), ("y=x^2", "x^2=0"), ("x+y=3", "3"), ("3x+4y=5", "3x+4y"),
    ("x=1", "x>=1"), ("k=-2", "k=2"), ("x=5", r"x\ne 5"), ("7", r"7 \approx 8"), ("7", r"6.9 \approx 7"),
    # choices
    ("B", "A, B"), ("B", "B or C"), ("B", "AB"), ("B", "(A) (B)"), ("B", "B and D"), ("B", "Bob"), ("B", "not B"),
    ("A", "An ellipse"), ("E", "2.718281828"), ("C", "(B) C"), ("D", "(A) D"), ("B", "B^2"), ("B", "8"), ("I", "1"),
    # words
    ("Friday", "Saturday"), ("yes", "no"), ("True", "False"), ("neither", "either"), ("red", "red and blue"),
    ("red and blue", "red"), ("even", "not even"), ("possible", "impossible"), ("infinitely many", "finitely many"),
    ("no solution", "solution"), ("no solution", "no"), ("left", "right"), ("listen", "silent"),
    ("Alice", "Alice and Bob"), ("increasing", "decreasing"), ("8:30", "8:03"), ("June 20", "June 21"),
    ("June 20", "20"), ("5:00 PM", "5:00 AM"), ("hyperbola", "parabola"), ("none", "one"),
    # bases
    ("1101_2", "1101_3"), ("1101_2", "1100_2"), ("1101_2", "14"), ("77_8", "77_9"), ("64", "77_8"), ("77_8", "88_8"),
    ("AB_{16}", "BA_{16}"), ("77", "77_8"),
    # malformed, and things that only look like numbers
    ("5", "5{"), ("5", r"\sqrt{25"), ("5", r"\frac{10}{2"), ("5", "5="), ("5", "=="), ("5", "5+"), ("5", "+"),
    ("5", "-"), ("5", "5/"), ("5", "/5"), ("5", r"\frac{5}"), ("5", r"\undefined{5}"), ("5", "5(("), ("5", ")5("),
    ("5", "[5)"), ("5", r"\left(5"), ("5", r"\begin{pmatrix}5"), ("5", r"5\end{pmatrix}"), ("5", "5!!"), ("5", "5!"),
    ("5", "5'"), ("5", "nan"), ("5", "inf"), (r"\infty", r"-\infty"), ("5", "5e"), ("5", "0x5"), ("5", "V"),
    ("10", "1O"), ("5", "S"), ("x", "×"), ("5", "5 \\cdot"), ("5", "^5"), ("5", "5_"), ("5", "\\5"), ("5", "5\\"),
]  # fmt: skip
