import { useEffect, useState } from "react";

import { cx } from "../skin";
import { Button, Column, Note, Panel } from "../kit";
import type { Control, Props, View } from "./contract";

type Name = "cookie" | "local" | "session";
type Entry = [key: string, value: string];

interface Stores extends View {
  stores: (Control & { store: Name; entries: Entry[] })[];
  columns: [string, string];
  broken: string;
}

// A cookie's text is escaped, so that it can hold any value; its life is short, in case the page is closed meanwhile.
const cookies = () =>
  document.cookie.split("; ").map((pair) => {
    const at = pair.indexOf("=");
    return [decodeURIComponent(pair.slice(0, at)), decodeURIComponent(pair.slice(at + 1))];
  });
const cookie = (key: string, value: string, seconds: number) => {
  document.cookie = `${encodeURIComponent(key)}=${encodeURIComponent(value)}; path=/; max-age=${seconds}; SameSite=Strict`;
};
const web = (name: Name) => (name === "local" ? localStorage : sessionStorage);

const write = (name: Name, [key, value]: Entry) => (name === "cookie" ? cookie(key, value, 3600) : web(name).setItem(key, value));
const read = (name: Name, key: string): string | null =>
  name === "cookie" ? (cookies().find((pair) => pair[0] === key)?.[1] ?? null) : web(name).getItem(key);
const remove = (name: Name, key: string) => (name === "cookie" ? cookie(key, "", 0) : web(name).removeItem(key));

// Writes a store's entries, and gives what can be read back; null where the browser refuses.
function useStore(name: Name, entries: Entry[]): Entry[] | null {
  const [found, setFound] = useState<Entry[] | null>([]);
  const wanted = JSON.stringify(entries);
  useEffect(() => {
    const own: Entry[] = JSON.parse(wanted);
    try {
      for (const entry of own) write(name, entry);
      setFound(own.flatMap(([key]) => {
        const value = read(name, key);
        return value === null ? [] : [[key, value] as Entry];
      }));
    } catch {
      setFound(null);
    }
    return () => {
      try {
        for (const [key] of own) remove(name, key);
      } catch {
        // nothing was kept, so nothing is left
      }
    };
  }, [name, wanted]);
  return found;
}

function Store({ name, entries, title, columns, broken }: { name: Name; entries: Entry[]; title: string; columns: [string, string]; broken: string }) {
  const found = useStore(name, entries);
  if (found === null || found.length < entries.length) return found && !found.length ? null : <Note>{broken}</Note>;
  return (
    <Panel>
      <table aria-label={title} className={cx("table")}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {found.map(([key, value]) => (
            <tr key={key}>
              <td>{key}</td>
              <td>{value}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Panel>
  );
}

export default function Storage({ view }: Props<Stores>) {
  return (
    <Column>
      {view.stores.map(({ part, label, store, entries }) => (
        <div key={part}>
          <Button part={part} label={label} />
          {entries.length > 0 && <Store name={store} entries={entries} title={label} columns={view.columns} broken={view.broken} />}
        </div>
      ))}
    </Column>
  );
}
