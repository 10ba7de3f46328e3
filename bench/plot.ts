/** A picture of a convergence: time over the number of leases, both in powers of ten. */

import { writeFileSync } from 'node:fs'
import { median, type Result } from './measure.ts'

const WIDTH = 760
const HEIGHT = 480
const PLOT = { left: 70, right: 580, top: 30, bottom: 420 }
const COLOURS: Readonly<Record<string, string>> = {
  tweed: '#0969da',
  'bare Node': '#8250df',
  'remembering Node': '#bf3989',
  floor: '#57606a',
  'etcdctl get': '#bf8700',
  peer: '#cf222e',
}

/** One candidate in one mode. */
interface Line {
  readonly name: string
  readonly colour: string
  readonly dashed: boolean
  readonly points: readonly (readonly [leases: number, ms: number])[]
}

/** SVG. */
export function plotConvergence(result: Result): string {
  const lines = linesOf(result)
  const points = lines.flatMap((line) => line.points)
  const x = scale(decades(points.map(([leases]) => leases)), PLOT.left, PLOT.right)
  const y = scale(decades(points.map(([, ms]) => ms)), PLOT.bottom, PLOT.top)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12" fill="#24292f">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    ...x.ticks.map((n) => gridLine(x.at(n), PLOT.top, x.at(n), PLOT.bottom)),
    ...y.ticks.map((n) => gridLine(PLOT.left, y.at(n), PLOT.right, y.at(n))),
    ...x.ticks.map((n) => label(x.at(n), PLOT.bottom + 18, n.toLocaleString('en'), 'middle')),
    ...y.ticks.map((n) => label(PLOT.left - 8, y.at(n) + 4, n.toLocaleString('en'), 'end')),
    label((PLOT.left + PLOT.right) / 2, PLOT.bottom + 42, 'leases', 'middle'),
    label(PLOT.left - 8, PLOT.top - 12, 'ms', 'end'),
    ...lines.map((line) => drawLine(line, x.at, y.at)),
    ...lines.map((line, i) => legend(line, PLOT.top + 10 + 22 * i)),
    '</svg>',
    '',
  ].join('\n')
}

export function savePlot(svg: string): void {
  writeFileSync(new URL('results/convergence.svg', import.meta.url), svg)
}

/** `static, 10,000 leases` is a case's name. */
function linesOf({ rows }: Result): Line[] {
  const lines = new Map<string, { line: Omit<Line, 'points'>; points: [number, number][] }>()
  for (const row of rows) {
    const [, mode = '', digits = ''] = /^(\w+), ([\d,]+) leases$/.exec(row.case) ?? []
    if (mode === '') continue
    const name = `${row.candidate}, ${mode === 'l3miss' ? 'L3 miss' : mode}`
    const colour = COLOURS[row.candidate] ?? '#24292f'
    const found = lines.get(name) ?? { line: { name, colour, dashed: mode === 'l3miss' }, points: [] }
    found.points.push([Number(digits.replaceAll(',', '')), median(row.samples)])
    lines.set(name, found)
  }
  return [...lines.values()].map(({ line, points }) => ({
    ...line,
    points: points.sort(([a], [b]) => a - b),
  }))
}

/** The powers of ten around the values, as exponents. */
function decades(values: readonly number[]): readonly [low: number, high: number] {
  const positive = values.filter((value) => value > 0).map(Math.log10)
  const low = Math.floor(Math.min(...positive))
  return [low, Math.max(low + 1, Math.ceil(Math.max(...positive)))]
}

function scale([low, high]: readonly [number, number], from: number, to: number) {
  return {
    ticks: Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i)),
    at: (value: number): number => round(from + ((Math.log10(value) - low) / (high - low)) * (to - from)),
  }
}

function drawLine(
  { points, colour, dashed }: Line,
  x: (n: number) => number,
  y: (n: number) => number,
): string {
  const places = points.map(([leases, ms]) => `${x(leases)},${y(ms)}`)
  const dash = dashed ? ' stroke-dasharray="6 4"' : ''
  const dots = points.map(
    ([leases, ms]) => `<circle cx="${x(leases)}" cy="${y(ms)}" r="3.5" fill="${colour}"/>`,
  )
  return `<polyline points="${places.join(' ')}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>${dots.join('')}`
}

function legend({ name, colour, dashed }: Line, at: number): string {
  const left = PLOT.right + 20
  const dash = dashed ? ' stroke-dasharray="6 4"' : ''
  const sample = `<line x1="${left}" y1="${at}" x2="${left + 28}" y2="${at}" stroke="${colour}" stroke-width="2"${dash}/>`
  return sample + label(left + 36, at + 4, name, 'start')
}

function gridLine(x1: number, y1: number, x2: number, y2: number): string {
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="#d0d7de"/>`
}

function label(x: number, y: number, text: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">${text}</text>`
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
