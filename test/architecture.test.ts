/**
 * The architecture as it is drawn in ARCHITECTURE.md, held against the imports of src/. Types count like values: who
 * knows a module's types knows the module.
 */

import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename, dirname, join, matchesGlob } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const SRC = fileURLToPath(new URL('../src', import.meta.url))

interface Rule {
  /** Globs below src/. A file belongs to the first rule that has it. */
  readonly files: readonly string[]
  /** What these files may import of src/, beside each other. */
  readonly may: readonly string[]
  /** No clock, no process, no input or output: the same arguments give the same result. */
  readonly pure: boolean
  readonly why: string
}

const STATE = 'state.ts'
const ADDRESS = 'address/*'
const NETWORK_CONFIG = 'config/network-config.ts'
const COMPANIONS = 'backend/{extension-commands,ipsec-charon,lease-queue}.ts'
const LEASE_MODEL = 'lease/{lease,allocate,registry,admission,judge,claims,grace,entries}.ts'

const RULES: readonly Rule[] = [
  {
    files: [ADDRESS],
    may: [],
    pure: true,
    why: 'addresses are the vocabulary of all others',
  },
  {
    files: [STATE],
    may: [ADDRESS],
    pure: true,
    why: 'what is desired is said without knowing who desires it, or how the kernel is told',
  },
  {
    files: ['config/{flags,docker-options}.ts'],
    may: [],
    pure: true,
    why: "a command line is text in any program, its own and dockerd's",
  },
  {
    files: [NETWORK_CONFIG],
    may: [ADDRESS],
    pure: true,
    why: 'the config is one text for all backends; each of them reads its own settings in it',
  },
  {
    files: ['config/subnet-file.ts'],
    may: [ADDRESS],
    pure: false,
    why: 'a file for container runtimes, which know neither leases nor backends',
  },
  {
    files: [LEASE_MODEL],
    may: [ADDRESS, NETWORK_CONFIG],
    pure: true,
    why: 'what a lease is, who gets which, and which are believed is the same for every registry',
  },
  {
    files: ['lease/kubernetes/{annotations,node,lines}.ts'],
    may: [LEASE_MODEL, ADDRESS],
    pure: true,
    why: 'what a node says is read without a server, so that any node can be tried',
  },
  {
    files: ['lease/**'],
    may: [LEASE_MODEL, 'lease/kubernetes/{annotations,node,lines}.ts', ADDRESS],
    pure: false,
    why: 'a registry keeps leases; it knows neither backends nor the kernel',
  },
  {
    files: [COMPANIONS],
    may: [
      'backend/*',
      'vici/*',
      'kernel/bell.ts',
      'status/printable.ts',
      'lease/lease.ts',
      NETWORK_CONFIG,
      ADDRESS,
    ],
    pure: false,
    why: "a companion acts beside the kernel's tables, one lease after the other; what it says ends in the log",
  },
  {
    files: ['backend/table.ts', 'backend/wireguard-key.ts'],
    may: ['backend/*', NETWORK_CONFIG, ADDRESS],
    pure: false,
    why: 'what a backend needs of the machine (a key file) is had before it is made; the list knows whom to open',
  },
  {
    files: ['backend/*'],
    may: [STATE, 'lease/lease.ts', NETWORK_CONFIG, 'vici/message.ts', ADDRESS],
    pure: true,
    why: 'a backend turns leases into desired state; how the kernel is told is not its business',
  },
  {
    files: ['vici/client.ts'],
    may: ['vici/*'],
    pure: false,
    why: "the one place where charon's messages meet its socket",
  },
  {
    files: ['vici/*'],
    may: [],
    pure: true,
    why: 'the codec speaks of vici alone: it could be published on its own',
  },
  {
    files: ['netlink/connection.ts'],
    may: ['netlink/*', 'native.ts'],
    pure: false,
    why: 'the one place where netlink messages meet a socket',
  },
  {
    files: ['netlink/wireguard-socket.ts'],
    may: ['netlink/*'],
    pure: false,
    why: "a process that stands in for the kernel's WireGuard is asked over a unix socket, in its own words",
  },
  {
    files: ['netlink/*'],
    may: [ADDRESS],
    pure: true,
    why: 'the codec speaks of the kernel alone: it could be published on its own',
  },
  {
    files: [
      'kernel/{diff,ownership,answers,cells,dependents,nexthops,desired,unanswered,misses,retries,roaming,waiting-shares}.ts',
    ],
    may: [STATE, ADDRESS],
    pure: true,
    why: 'what is to be done is decided without a kernel, so that it can be tested as a law',
  },
  {
    files: ['kernel/*'],
    may: ['kernel/*', STATE, 'netlink/*', ADDRESS],
    pure: false,
    why: 'the one folder that knows both our state and netlink; it knows neither leases nor backends',
  },
  {
    files: ['status/status.ts'],
    may: [],
    pure: true,
    why: 'the form of a status is what the agent and those who ask it have in common',
  },
  {
    files: ['status/{printable,words}.ts'],
    may: [STATE],
    pure: true,
    why: 'what may be shown on a terminal does not depend on who says it',
  },
  {
    files: ['status/systemd.ts'],
    may: ['native.ts'],
    pure: false,
    why: 'a datagram to the service manager, which Node cannot send; it says what it is given',
  },
  {
    files: ['status/client.ts'],
    may: ['status/status.ts'],
    pure: false,
    why: 'who asks an agent knows only what it says of itself',
  },
  {
    files: ['status/*'],
    may: [
      'status/*',
      STATE,
      ADDRESS,
      'backend/backend.ts',
      NETWORK_CONFIG,
      LEASE_MODEL,
      'masquerade/firewall.ts',
      'log.ts',
      ADDRESS,
    ],
    pure: false,
    why: 'the journal writes down what happened: it knows what everything is, and does nothing',
  },
  {
    files: ['masquerade/{rules,iptables-rules,nftables-rules}.ts'],
    may: ['masquerade/*', ADDRESS],
    pure: true,
    why: 'which rules there shall be is decided without a packet filter',
  },
  {
    files: ['masquerade/*'],
    may: ['masquerade/*', ADDRESS],
    pure: false,
    why: 'the packet filter is its own kernel: nothing of it is in the plan of routes and neighbours',
  },
  {
    files: ['agent/*'],
    may: [
      'agent/*',
      'masquerade/{firewall,mode}.ts',
      'config/*',
      'backend/*',
      LEASE_MODEL,
      'kernel/{reconcile,host,selection}.ts',
      STATE,
      'status/journal.ts',
      ADDRESS,
    ],
    pure: false,
    why: 'the loop joins leases, backend and kernel, each through its seam: no registry, no netlink, no socket',
  },
  {
    files: ['native.ts', 'log.ts', 'v8.ts', 'version.ts'],
    may: [],
    pure: false,
    why: 'the edges of the process',
  },
  {
    files: ['lab/**'],
    may: [
      'lab/**',
      'status/{client,status}.ts',
      'lease/**',
      NETWORK_CONFIG,
      'netlink/*',
      'native.ts',
      STATE,
      ADDRESS,
    ],
    pure: false,
    why: 'a lab starts agents as programs and looks at them from outside',
  },
  {
    files: ['cli/*', 'main.ts'],
    may: ['**'],
    pure: false,
    why: 'commands put everything together',
  },
]

/** Above 300 lines a file asks for a reason; above this it must stand here with one. */
const LONGEST = 350
const LONG: Readonly<Record<string, string>> = {
  'lease/etcd/rpc.ts': 'generated from rpc.proto by scripts/generate-etcd',
  'status/journal.ts': 'what is logged and what is shown is said once, of the same facts',
  'kernel/mirror.ts': 'what the kernel tells, and what it leaves untold, is one account',
  'kernel/reconcile.ts': 'the turn, from reading to reporting, is one thought',
}

interface Source {
  /** Below src/: `kernel/diff.ts`. */
  readonly path: string
  /** Without comments. */
  readonly code: string
  readonly lines: number
  /** As written: `node:fs`, `pino`; files of src/ by their path. */
  readonly imports: readonly string[]
}

const SOURCES = globSync('**/*.ts', { cwd: SRC })
  .filter((path) => !path.endsWith('.test.ts'))
  .toSorted()
  .map(readSource)

function readSource(path: string): Source {
  const text = readFileSync(join(SRC, path), 'utf8')
  const code = text.replaceAll(/\/\*.*?\*\/|^\s*\/\/[^\n]*/gms, '')
  const written = code.matchAll(
    /^(?:import|export)\b[^'"`;=]*?from '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm,
  )
  const imports = Array.from(written, ([, from, bare, dynamic]) => from ?? bare ?? dynamic ?? '')
  return {
    path,
    code,
    lines: text.split('\n').length - 1,
    imports: imports.map((name) => (name.startsWith('.') ? join(dirname(path), name) : name)),
  }
}

function ruleOf(path: string): Rule | undefined {
  return RULES.find(({ files }) => isOneOf(path, files))
}

function isOneOf(path: string, globs: readonly string[]): boolean {
  return globs.some((glob) => matchesGlob(path, glob))
}

/** The files whose code matches, each with what it says. */
function whereCode(pattern: RegExp, among: readonly Source[] = SOURCES): string[] {
  return among.flatMap(({ path, code }) => {
    const found = pattern.exec(code)
    return found === null ? [] : [`${path}: ${found[0]}`]
  })
}

describe('who may import whom', () => {
  test('every file has a rule, and every rule has a file', () => {
    const without = SOURCES.filter(({ path }) => ruleOf(path) === undefined).map(({ path }) => path)
    assert.deepEqual(without, [])
    const used = new Set(SOURCES.map(({ path }) => ruleOf(path)))
    assert.deepEqual(
      RULES.filter((rule) => !used.has(rule)).map(({ files }) => files),
      [],
    )
  })

  for (const rule of RULES) {
    test(`${rule.files.join(', ')}: ${rule.why}`, () => {
      const wrong = SOURCES.filter(({ path }) => ruleOf(path) === rule).flatMap(({ path, imports }) =>
        imports
          .filter((name) => name.endsWith('.ts'))
          .filter((name) => ruleOf(name) !== rule && !isOneOf(name, rule.may))
          .map((name) => `${path} imports ${name}`),
      )
      assert.deepEqual(wrong, [])
    })
  }

  test('no file imports itself through others', () => {
    assert.deepEqual(cycles(), [])
  })

  test('the addon is loaded in native.ts alone', () => {
    const others = SOURCES.filter(({ path }) => path !== 'native.ts')
    assert.deepEqual(whereCode(/createRequire|dlopen|\.node\b['"`]/, others), [])
  })

  test('a pure module has no clock, no process, no input and output', () => {
    const pure = SOURCES.filter(({ path }) => ruleOf(path)?.pure === true)
    assert.ok(pure.length > 20)
    const imports = pure.flatMap(({ path, imports }) =>
      // A hash and a comparison are functions; of the system's constants the codec has the names of error numbers.
      imports
        .filter((name) => !name.endsWith('.ts') && !['node:crypto', 'node:os', 'node:util'].includes(name))
        .map((name) => `${path} imports ${name}`),
    )
    assert.deepEqual(imports, [])
    const impure =
      /\bDate\.now|\bperformance\.|\bnew Date\(\)|\bprocess\.|\bset(?:Timeout|Interval|Immediate)\b|\bMath\.random|\brandom\w+\(|\bfetch\(|\bconsole\./
    assert.deepEqual(whereCode(impure, pure), [])
  })
})

describe('how files are cut', () => {
  test('no file only passes on what others export', () => {
    assert.deepEqual(whereCode(/^export\b[^'"`;=]*? from '[^']+'/m), [])
    assert.deepEqual(
      SOURCES.filter(({ path }) => basename(path) === 'index.ts'),
      [],
    )
  })

  test('nothing is called by a name that says nothing', () => {
    const nothing = /(?:^|\/)(?:utils?|helpers?|common|shared|misc|lib|types)(?:\/|\.ts$)/
    assert.deepEqual(
      SOURCES.filter(({ path }) => nothing.test(path)).map(({ path }) => path),
      [],
    )
  })

  test('only errors extend a class, and nothing emits events', () => {
    assert.deepEqual(whereCode(/\bclass \w+(?:<.*?>)? extends (?!Error\b)\w+|\bEventEmitter\b/), [])
  })

  test('a file can be read at one sitting', () => {
    const long = SOURCES.filter(({ path, lines }) => lines > LONGEST && !Object.hasOwn(LONG, path))
    assert.deepEqual(
      long.map(({ path, lines }) => `${path}: ${lines} lines`),
      [],
    )
  })
})

/** Each cycle of imports once, as the path through it. */
function cycles(): string[] {
  const imports = new Map(SOURCES.map((source) => [source.path, source.imports]))
  const done = new Set<string>()
  const found: string[] = []
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path)
    if (start !== -1) found.push([...trail.slice(start), path].join(' → '))
    if (start !== -1 || done.has(path)) return
    for (const name of imports.get(path) ?? []) visit(name, [...trail, path])
    done.add(path)
  }
  for (const { path } of SOURCES) visit(path, [])
  return found
}
