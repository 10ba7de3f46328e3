/**
 * Flags in the forms of Go's `flag` package, which flanneld's users write into unit files: `-x v`, `-x=v`, `--x v`,
 * `--x=v`; a boolean takes its value after `=` only. The first argument that is no flag ends the flags.
 */

export interface FlagSpec {
  readonly kind: 'string' | 'boolean' | 'integer'
  readonly default: string
  readonly help: string
  /** May be given many times; the values are kept in order. */
  readonly repeatable?: true
}

export type FlagTable = Readonly<Record<string, FlagSpec>>

/** One list of texts for each flag; a flag that was not given has its default. */
export class Flags<Table extends FlagTable> {
  readonly #values: ReadonlyMap<string, readonly string[]>

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values
  }

  all(name: keyof Table & string): readonly string[] {
    return this.#values.get(name) ?? []
  }

  text(name: keyof Table & string): string {
    return this.all(name).at(-1) ?? ''
  }

  integer(name: keyof Table & string): number {
    return Number(this.text(name))
  }

  boolean(name: keyof Table & string): boolean {
    return TRUE.has(this.text(name))
  }
}

/** A command line that cannot be understood: exit status 2. */
export class FlagError extends Error {
  override readonly name = 'FlagError'
}

const TRUE = new Set(['1', 't', 'T', 'true', 'TRUE', 'True'])
const FALSE = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False'])
const INTEGER = /^[+-]?[0-9]+$/

export interface Environment {
  /** What stands before the name of each variable: `FLANNELD_`. */
  readonly prefix: string
  readonly variables: Readonly<Record<string, string | undefined>>
}

/**
 * A flag that was not given is looked for in the environment: `-ip-masq` as `FLANNELD_IP_MASQ`. An empty variable says
 * nothing. @throws {FlagError} naming the flag or variable, its value and what is allowed.
 */
export function parseFlags<Table extends FlagTable>(
  table: Table,
  argv: readonly string[],
  environment?: Environment,
): Flags<Table> {
  const given = parseArguments(table, argv)
  for (const [name, spec] of Object.entries(table)) {
    if (given.has(name)) continue
    const variable = environment && variableName(environment.prefix, name)
    const value = (variable && environment.variables[variable]) || undefined
    if (value !== undefined) check(variable ?? '', spec, value)
    const text = value ?? spec.default
    if (text !== '') given.set(name, [text])
  }
  return new Flags(given)
}

/** `FLANNELD_IP_MASQ` for `FLANNELD_` and `ip-masq`. */
export function variableName(prefix: string, flag: string): string {
  return `${prefix}${flag.toUpperCase().replaceAll('-', '_')}`
}

function parseArguments(table: FlagTable, argv: readonly string[]): Map<string, string[]> {
  const given = new Map<string, string[]>()
  let at = 0
  while (at < argv.length) {
    const argument = argv[at++] ?? ''
    const match = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(argument)
    if (match === null || argument === '--') {
      throw new FlagError(`${JSON.stringify(argument)} is not a flag, and no other arguments are taken`)
    }
    const [, name = '', assigned] = match
    const spec = Object.hasOwn(table, name) ? table[name] : undefined
    if (spec === undefined) throw new FlagError(`there is no flag -${name}; see -help`)
    const value = assigned ?? (spec.kind === 'boolean' ? 'true' : argv[at++])
    if (value === undefined) throw new FlagError(`flag -${name} needs a value`)
    check(`flag -${name}`, spec, value)
    given.set(name, spec.repeatable ? [...(given.get(name) ?? []), value] : [value])
  }
  return given
}

/** One line a flag, in the manner of Go's `PrintDefaults`. */
export function formatFlags(table: FlagTable): string {
  return Object.entries(table)
    .map(([name, { kind, default: value, help }]) => {
      const type = kind === 'boolean' ? '' : ` ${kind}`
      return `  -${name}${type}\n    \t${help}${value === '' ? '' : ` (default ${value})`}\n`
    })
    .join('')
}

/** @param what `flag -port`, or a variable's name. */
function check(what: string, spec: FlagSpec, value: string): void {
  if (spec.kind === 'boolean' && !TRUE.has(value) && !FALSE.has(value)) {
    throw new FlagError(`${what} is ${JSON.stringify(value)}: it must be true or false`)
  }
  if (spec.kind === 'integer' && !INTEGER.test(value)) {
    throw new FlagError(`${what} is ${JSON.stringify(value)}: it must be a whole number`)
  }
}
