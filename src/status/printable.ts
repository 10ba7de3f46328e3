/** Text from the registry, where anybody may have written it, made fit for a line of a log or a terminal. */

/** What is kept of each end of a long text: what is wrong is often said last. */
const END_LENGTH = 100

/** Control and format characters (Unicode Cc, Cf, and line ends) are escaped; what is long loses its middle. */
export function printable(text: string): string {
  const cut = text.length > 2 * END_LENGTH ? `${text.slice(0, END_LENGTH)}…${text.slice(-END_LENGTH)}` : text
  return cut.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`)
}
